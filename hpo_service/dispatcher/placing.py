"""From a free slot to a running slice: propose off the loop, accept on it in one transaction."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import TrialState, create_trial
from sqlalchemy.orm import Session

from hpo_service.dispatcher import endings
from hpo_service.dispatcher.memory import RUNNING, LiveSlice, LiveStudy, open_slice
from hpo_service.domain import StudyState
from hpo_service.intents import EventKind
from hpo_service.repository import dispatch
from hpo_service.samplers import propose_assignment
from hpo_service.search_space import Assignment, SearchSpace
from hpo_service.spec import ResolvedStudy
from hpo_service.strategies.base import Advance, Start, Step, Strategy, StudyView
from hpo_service.strategies.scalarization import Scalarization
from trainer.spec import Parameters, Slice, SnapshotRef

log = logging.getLogger(__name__)

#: So many snapshots, newest first, are offered to a worker; the first that verifies is taken.
_OFFERED_SNAPSHOTS = 4


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A strategy's step for one state of a study, with the assignment if it starts a trial."""

    decision_number: int
    step: Step
    assignment: Assignment | None = None
    resampled: int = 0


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A committed attempt, to be handed to `worker`."""

    work: Slice
    worker: str


def propose(strategy: Strategy, space: SearchSpace, resolved: ResolvedStudy, view: StudyView) -> Proposal:
    """Pure and possibly slow: runs on a thread of its own."""
    together = Scalarization(view) if len(view.objectives) > 1 else None
    step = strategy.propose(view) if together is None else _proposed_together(strategy, resolved, together)
    if not isinstance(step, Start):
        return Proposal(decision_number=view.decision_number, step=step)
    if step.assignment is not None:
        return Proposal(decision_number=view.decision_number, step=step, assignment=step.assignment)
    fixed: Mapping[str, Any] = {} if step.trial_number is None else view.trials[step.trial_number].sampled
    seen = view if together is None else together.curves()
    assignment, resampled = propose_assignment(space, seen, resolved.search.sampler, fixed)
    return Proposal(decision_number=view.decision_number, step=step, assignment=assignment, resampled=resampled)


def _proposed_together(strategy: Strategy, resolved: ResolvedStudy, together: Scalarization) -> Step:
    """With several objectives: freeze-thaw models their curves, the other strategies rank trials."""
    models_curves = resolved.search.strategy == "freeze_thaw"
    return together.told(strategy.propose(together.curves() if models_curves else together.ranks()))


def still_valid(study: LiveStudy, proposal: Proposal) -> bool:
    """Whether the study is as the proposal saw it, as far as it matters."""
    if proposal.decision_number != study.decision_number:
        return False
    if study.state not in (StudyState.QUEUED, StudyState.RUNNING):
        return False
    step = proposal.step
    trials = study.trials()
    if isinstance(step, Advance):
        held = any(piece.trial_number == step.trial_number for piece in study.slices.values())
        return not held and trials[step.trial_number].state is TrialState.RUNNING
    if isinstance(step, Start):
        if step.trial_number is not None:
            return trials[step.trial_number].state is TrialState.WAITING
        return len(trials) < study.resolved.budget.max_trials
    return True


def accept(session: Session, study: LiveStudy, proposal: Proposal) -> LiveSlice:
    """Write the trial (if new), the slice and the decision. The attempt follows with `begin`."""
    step = proposal.step
    assert isinstance(step, Advance | Start)
    if study.state is StudyState.QUEUED:
        endings.enter(session, study, StudyState.RUNNING)
    if isinstance(step, Start):
        assert proposal.assignment is not None
        number = _start_trial(study, step, proposal.assignment)
        until = study.resolved.trial_rungs(proposal.assignment.parameters)[0]
    else:
        number, until = step.trial_number, step.until_examples
    study.decision_number += 1
    changed: dict[str, Any] = {"decision_number": study.decision_number}
    if step.memory is not None:
        study.memory = changed["memory"] = dict(step.memory)
    dispatch.update_study(session, study.id, **changed)
    row = dispatch.add_slice(session, study.project_id, study.id, study.trials()[number]._trial_id, number, until)
    piece = open_slice(row)
    study.slices[piece.id] = piece
    return piece


def begin(
    session: Session,
    study: LiveStudy,
    piece: LiveSlice,
    *,
    worker: str,
    worker_id: int,
    decision: Advance | Start | None,
) -> Placement:
    """Write the next attempt of a waiting slice on `worker`, with the decision that it follows from if it is fresh."""
    if piece.running:
        raise RuntimeError(f"slice {piece.id} is running already under attempt {piece.attempt}")
    piece.attempt += 1
    piece.running = True
    dispatch.start_attempt(session, study.project_id, piece.id, piece.attempt, worker_id)
    study.storage.set_trial_user_attr(piece.optuna_trial_id, "hpo_state", RUNNING)
    work = describe(session, study, piece)
    payload = {
        "slice_id": piece.id,
        "attempt": piece.attempt,
        "until_examples": piece.until_examples,
        "reason": "resumed from the newest snapshot" if decision is None else decision.reason,
        "parameters": work.trial.parameters.model_dump(),
        "worker": worker,
    }
    if decision is not None:
        payload |= {"decision_number": study.decision_number, "numbers": dict(decision.numbers)}
    dispatch.add_event(session, study.project_id, study.id, EventKind.SLICE_STARTED, payload, piece.trial_number)
    return Placement(work=work, worker=worker)


def describe(session: Session, study: LiveStudy, piece: LiveSlice) -> Slice:
    """The slice as a worker gets it, for the slice's current attempt."""
    attrs = study.trials()[piece.trial_number].user_attrs
    known = dispatch.trial_snapshots(session, study.id, piece.trial_number)[:_OFFERED_SNAPSHOTS]
    return Slice(
        slice_id=piece.id,
        attempt=max(1, piece.attempt),
        trial=study.resolved.trial_spec(Parameters.model_validate(attrs["parameters"]), attrs.get("seed")),
        until_examples=piece.until_examples,
        snapshot_dir=f"{study.id}/{piece.optuna_trial_id}/{piece.until_examples}/{max(1, piece.attempt)}",
        snapshots=tuple(SnapshotRef.model_validate(snapshot) for snapshot in known),
    )


def _start_trial(study: LiveStudy, step: Start, assignment: Assignment) -> int:
    """Create the RUNNING trial, or move the enqueued one there, with its parameters fixed. Its number."""
    assert study.optuna_study_id is not None
    attrs = _attributes(study, assignment) | _run_attributes(study, step)
    distributions = study.space.distributions()
    waiting_number = step.trial_number
    if waiting_number is None:
        template = create_trial(
            state=TrialState.RUNNING,
            params=dict(assignment.sampled),
            distributions={name: distributions[name] for name in assignment.sampled},
            user_attrs=attrs,
        )
        trial_id = study.storage.create_new_trial(study.optuna_study_id, template)
        return study.storage.get_trial(trial_id).number
    trial_id = study.trials()[waiting_number]._trial_id
    for name, value in assignment.sampled.items():
        distribution = distributions[name]
        study.storage.set_trial_param(trial_id, name, distribution.to_internal_repr(value), distribution)
    for name, value in attrs.items():
        study.storage.set_trial_user_attr(trial_id, name, value)
    study.storage.set_trial_state_values(trial_id, TrialState.RUNNING)
    return waiting_number


def _run_attributes(study: LiveStudy, step: Start) -> dict[str, Any]:
    """What makes the trial a run of a confirmation."""
    plan = study.resolved.confirmation
    if plan is None or step.run is None:
        return {}
    attrs: dict[str, Any] = {"candidate": step.run.candidate, "seed": step.run.seed}
    return attrs | {"baseline": True} if plan.candidate(step.run.candidate).baseline else attrs


def _attributes(study: LiveStudy, assignment: Assignment) -> dict[str, Any]:
    """What a reader of the trial needs: resolved values, and the real value of every parameter coded as an index."""
    parameters = assignment.parameters.model_dump()
    coded = {
        name: parameters[name] for name, value in assignment.sampled.items() if parameters.get(name, value) != value
    }
    return {
        "parameters": parameters,
        "total_examples": study.resolved.trial_rungs(assignment.parameters)[-1],
        "hpo_state": RUNNING,
        **coded,
    }
