"""Confirmation: a study of its own that begins when a search has ended, and that its parent follows to its end.

Which of the two leads follows from their states alone, at the end of every transaction: what users ask of the parent
carries over to the child, and how the child stands shows in the parent.
"""

from hashlib import sha256

from sqlalchemy.orm import Session

from hpo_service.core.study_rules import TERMINAL, StudyState
from hpo_service.dispatcher.lifecycle import study_state
from hpo_service.dispatcher.lifecycle.confirmation_candidates import candidates
from hpo_service.dispatcher.lifecycle.confirmation_notes import recorded_runs
from hpo_service.dispatcher.lifecycle.open_study import open_study
from hpo_service.dispatcher.state.live_studies import LiveStudy, load_study
from hpo_service.search.confirmation.race import most_runs
from hpo_service.search.confirmation.report import report
from hpo_service.search.strategies.base import TrialView
from hpo_service.spec import ConfirmationPlan
from hpo_service.spec.confirmation import CONFIRMATION_SUFFIX
from hpo_service.storage.queries import dispatch

_IDLE = (StudyState.QUEUED, StudyState.PAUSED)


def follow_all(session: Session, studies: dict[int, LiveStudy]) -> None:
    """Begin the confirmations that are due, and bring every parent and child in line."""
    for study in list(studies.values()):
        if study.search_ended is not None and study.searching:
            _begin(session, study, studies)
        child = None if study.child_id is None else studies.get(study.child_id)
        if child is not None:
            _carry_over(session, study, child)
            _show(session, study, child)


def plan_of(study: LiveStudy, ended: str) -> ConfirmationPlan | None:
    """What is to be confirmed; None if no trial but the baseline is worth it."""
    settings = study.resolved.confirm
    if settings is None:
        return None
    trials = study.view().trials
    chosen = candidates(study.resolved, trials, settings.top)
    if not chosen:
        return None
    spent = sum(map(_trained_examples, trials))
    return ConfirmationPlan(
        candidates=chosen,
        seeds=_new_seeds(study.resolved.training.seed, settings.seeds),
        max_examples=round(settings.share * (study.resolved.budget.max_examples or spent)),
        ended=ended,
    )


def _trained_examples(trial: TrialView) -> int:
    """What its rung took: the last step goes past it, up to the trial's end."""
    batch = int(trial.parameters.get("effective_batch", 1))
    return min(-(-trial.rung // batch) * batch, trial.ladder[-1]) if trial.rung else 0


def _begin(session: Session, study: LiveStudy, studies: dict[int, LiveStudy]) -> None:
    ended, study.search_ended = study.search_ended or "", None
    plan = plan_of(study, ended)
    if plan is None:
        study_state.end_confirmed(session, study, StudyState.COMPLETED, ended)
        return
    resolved = study.resolved.confirming(plan).model_dump(mode="json")
    row = dispatch.add_confirmation(session, study.id, CONFIRMATION_SUFFIX, resolved)
    child = load_study(session, row, study.mlflow_url)
    open_study(session, child)
    studies[child.id] = child
    study.child_id = child.id
    dispatch.update_study(session, study.id, forecast={})  # it was the search's
    if study.state is not StudyState.RUNNING:
        study_state.enter(session, study, StudyState.RUNNING, _progress(child))


def _new_seeds(known: int, count: int) -> tuple[int, ...]:
    """Seeds that the search has not used: the same for every candidate, so that runs can be compared in pairs."""
    seeds: list[int] = []
    number = 0
    while len(seeds) < count:
        seed = int.from_bytes(sha256(f"confirm:{known}:{number}".encode()).digest()[:4], "big") >> 1
        if seed != known and seed not in seeds:
            seeds.append(seed)
        number += 1
    return tuple(seeds)


def _carry_over(session: Session, study: LiveStudy, child: LiveStudy) -> None:
    """Pause, resume, stop or end the child as its parent was."""
    match study.state:
        case StudyState.PAUSING | StudyState.PAUSED if child.state is StudyState.QUEUED:
            study_state.enter(session, child, StudyState.PAUSED)
        case StudyState.PAUSING | StudyState.PAUSED if child.state is StudyState.RUNNING:
            study_state.enter(session, child, StudyState.PAUSING)
            study_state.conclude(session, child)
        case StudyState.RUNNING if child.state in (StudyState.PAUSED, StudyState.PAUSING):
            study_state.enter(session, child, StudyState.RUNNING)
        case StudyState.STOPPING | StudyState.COMPLETED:
            _end(session, child, StudyState.STOPPING, StudyState.COMPLETED)
        case StudyState.CANCELLING | StudyState.CANCELLED | StudyState.FAILED:
            _end(session, child, StudyState.CANCELLING, StudyState.CANCELLED)


def _end(session: Session, child: LiveStudy, ending: StudyState, ended: StudyState) -> None:
    if child.state in _IDLE:
        study_state.end_unstarted(session, child, ended)
    elif child.state not in TERMINAL and child.state not in (ending, StudyState.CANCELLING):
        study_state.enter(session, child, ending)
        study_state.conclude(session, child)


def _show(session: Session, study: LiveStudy, child: LiveStudy) -> None:
    """Bring the parent where its child is."""
    if study.state in TERMINAL:
        return
    if child.state in TERMINAL:
        _conclude(session, study, child)
    elif study.state is StudyState.PAUSING and child.state is StudyState.PAUSED:
        study_state.enter(session, study, StudyState.PAUSED)
    elif study.state is StudyState.RUNNING:
        study_state.say(session, study, _progress(child))


def _conclude(session: Session, study: LiveStudy, child: LiveStudy) -> None:
    plan = child.resolved.confirmation
    assert plan is not None
    if study.state is StudyState.CANCELLING:
        study_state.end_confirmed(session, study, StudyState.CANCELLED, "")
        return
    message, state = plan.ended, StudyState.COMPLETED
    runs = recorded_runs(child)
    if child.state is StudyState.FAILED or (runs and all(run.state == "failed" for run in runs)):
        # What was asked for was not done. The trials of the search and their adapters stay as they are.
        state = StudyState.FAILED
        message += f"; the confirmation failed: {child.message}"
    elif study.state is StudyState.STOPPING:
        message += "; the confirmation was stopped"
    elif report(plan, runs).ended is None:
        message += f"; the confirmation ended early: {child.message}"
    if study.state is StudyState.PAUSING:
        study_state.enter(session, study, StudyState.STOPPING)
    study_state.end_confirmed(session, study, state, message)


def _progress(child: LiveStudy) -> str:
    plan = child.resolved.confirmation
    assert plan is not None
    done = sum(trial.state.is_finished() for trial in child.trials())
    return f"confirming: {done} of at most {most_runs(plan)} runs"
