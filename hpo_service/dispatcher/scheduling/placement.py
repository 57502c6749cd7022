"""A proposal becomes a slice, a slice an attempt on a worker: what is written of it, and what the worker is told."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import TrialState, create_trial
from sqlalchemy.orm import Session

from hpo_service.core.messages import EventKind
from hpo_service.core.study_rules import StudyState
from hpo_service.dispatcher.lifecycle import study_state
from hpo_service.dispatcher.results import oom_retry
from hpo_service.dispatcher.scheduling.propose import Proposal
from hpo_service.dispatcher.state.live_studies import RUNNING, LiveSlice, LiveStudy
from hpo_service.search.strategies.base import Advance, Start
from hpo_service.spec.space import Assignment
from hpo_service.spec.trial_parameters import fixed_attributes, trained_with
from hpo_service.storage.queries import dispatch
from trainer.spec import Parameters, Slice, SnapshotRef

Row = dict[str, Any]
"""Columns by name."""

#: So many snapshots, newest first, are offered to a worker; the first that verifies is taken.
_OFFERED_SNAPSHOTS = 4
#: A slice that is to run alone counts as so many: its worker takes nothing beside it.
FULL = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Placement:
    """An attempt that is to be handed to `worker` once `attempt`, its row, is committed."""

    work: Slice
    worker: str
    attempt: Row


def still_valid(study: LiveStudy, proposal: Proposal) -> bool:
    """Whether the study is as the proposal saw it, as far as it matters."""
    if proposal.decision_number != study.decision_number:
        return False
    if study.state not in (StudyState.QUEUED, StudyState.RUNNING):
        return False
    step = proposal.step
    if isinstance(step, Advance):
        held = any(piece.trial_number == step.trial_number for piece in study.slices.values())
        return not held and study.trial(step.trial_number).state is TrialState.RUNNING
    if isinstance(step, Start):
        if step.trial_number is not None:
            return study.trial(step.trial_number).state is TrialState.WAITING
        return study.trial_count() < study.resolved.budget.max_trials
    return True


def target(study: LiveStudy, proposal: Proposal) -> tuple[int | None, int]:
    """The trial that the proposal is about (None: a new one) and the rung that it is taken to."""
    step = proposal.step
    if isinstance(step, Advance):
        return step.trial_number, step.until_examples
    assert isinstance(step, Start)
    assert proposal.assignment is not None
    return step.trial_number, study.resolved.trial_rungs(proposal.assignment.parameters)[0]


def accept(session: Session, study: LiveStudy, proposal: Proposal, slice_id: int) -> tuple[LiveSlice, Row]:
    """Write the trial (if new) and the decision. The slice's row is for the caller to write, once `begin` completed it.

    `note_decision_number` has to follow, too.
    """
    step = proposal.step
    assert isinstance(step, Advance | Start)
    if study.state is StudyState.QUEUED:
        study_state.enter(session, study, StudyState.RUNNING)
    known, until = target(study, proposal)
    if isinstance(step, Start):
        assert proposal.assignment is not None
        known = _start_trial(study, step, proposal.assignment)
    assert known is not None
    number = known
    study.decision_number += 1
    if step.memory is not None:
        study.memory = dict(step.memory)
        dispatch.update_study(session, study.id, memory=study.memory)
    trial_id = study.trial(number)._trial_id
    row: Row = {
        "id": slice_id,
        "project_id": study.project_id,
        "study_id": study.id,
        "optuna_trial_id": trial_id,
        "trial_number": number,
        "until_examples": until,
        "state": "waiting",
        "attempt": 0,
    }
    piece = study.slices[slice_id] = LiveSlice(
        id=slice_id,
        trial_number=number,
        optuna_trial_id=trial_id,
        until_examples=until,
        attempt=0,
        failures=0,
        running=False,
        decision=step,
        decision_number=study.decision_number,
        ask_seconds=proposal.seconds,
    )
    return piece, row


def note_decision_number(session: Session, study: LiveStudy) -> None:
    """Write how many decisions were accepted."""
    dispatch.set_decision_number(session, study.id, study.decision_number)


def begin(
    session: Session,
    study: LiveStudy,
    piece: LiveSlice,
    work: Slice,
    *,
    worker: str,
    worker_id: int,
    row: Row | None = None,
) -> Placement:
    """Write the next attempt of a waiting slice on `worker`, with the decision that it follows from if it is the first.

    `work` is what `describe` says of it, `row` the slice's if it is not in the database yet. The attempt's row is for
    the caller to write.
    """
    if piece.running:
        raise RuntimeError(f"slice {piece.id} is running already under attempt {piece.attempt}")
    decision, piece.decision = piece.decision, None
    piece.attempt += 1
    piece.running, piece.begun_at, piece.queued_seconds = True, time.monotonic(), None
    if row is None:
        dispatch.set_current_attempt(session, piece.id, piece.attempt)
    else:
        row |= {"state": "running", "attempt": piece.attempt}
    attempt: Row = {
        "project_id": study.project_id,
        "slice_id": piece.id,
        "attempt": piece.attempt,
        "worker_id": worker_id,
        "predicted_seconds": piece.predicted_seconds,
    }
    study.storage.set_trial_user_attr(piece.optuna_trial_id, "hpo_state", RUNNING)
    payload = {
        "slice_id": piece.id,
        "attempt": piece.attempt,
        "until_examples": piece.until_examples,
        "reason": "resumed from the newest snapshot" if decision is None else decision.reason,
        "parameters": work.trial.parameters.model_dump(),
        "worker": worker,
    }
    if decision is not None:
        payload |= {
            "decision_number": piece.decision_number,
            "numbers": dict(decision.numbers),
            "ask_seconds": round(piece.ask_seconds, 6),
        }
    dispatch.add_event(session, study.project_id, study.id, EventKind.SLICE_STARTED, payload, piece.trial_number)
    return Placement(work=work, worker=worker, attempt=attempt)


def describe(study: LiveStudy, piece: LiveSlice, snapshots: Sequence[dict[str, Any]]) -> Slice:
    """The slice as a worker gets it, for the attempt after the current one. `snapshots`: the trial's, newest first."""
    trial = study.trial(piece.trial_number)
    parameters = Parameters.model_validate(trained_with(trial.params, trial.user_attrs))
    attempt = piece.attempt + 1
    return Slice(
        slice_id=piece.id,
        attempt=attempt,
        trial=study.resolved.trial_spec(parameters, trial.user_attrs.get("seed")),
        until_examples=piece.until_examples,
        snapshot_dir=f"{study.id}/{piece.optuna_trial_id}/{piece.until_examples}/{attempt}",
        snapshots=tuple(SnapshotRef.model_validate(snapshot) for snapshot in snapshots[:_OFFERED_SNAPSHOTS]),
        data_fingerprints=study.data_fingerprints,
        micro_batch=oom_retry.micro_batch(study, piece.trial_number),
        alone=piece.kills > 0,
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
    trial_id = study.trial(waiting_number)._trial_id
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
    """What a reader of the trial needs besides its sampled parameters."""
    return {
        **fixed_attributes(assignment),
        "total_examples": study.resolved.trial_rungs(assignment.parameters)[-1],
        "hpo_state": RUNNING,
    }
