"""How studies change state and end: what becomes of their trials and slices."""

from optuna.trial import TrialState
from sqlalchemy.orm import Session

from hpo_service.core.messages import EventKind
from hpo_service.core.study_rules import StudyState, require_transition
from hpo_service.dispatcher.lifecycle import trial_notes
from hpo_service.dispatcher.state.live_studies import LiveStudy
from hpo_service.search.strategies import ranking
from hpo_service.search.strategies.scalarization import Scalarization
from hpo_service.storage.queries import dispatch
from trainer.spec import Outcome


def enter(session: Session, study: LiveStudy, state: StudyState, message: str = "") -> None:
    """Move the study to `state`, with its event. Raises Conflict if the transition is illegal."""
    require_transition(study.name, study.state, state)
    study.started_at = dispatch.set_state(session, study.id, state, message)
    payload = {"state": str(state), "message": message}
    dispatch.add_event(session, study.project_id, study.id, EventKind.STUDY_STATE, payload)
    study.state, study.message, study.note_due = state, message, True


def fail_study(session: Session, study: LiveStudy, message: str) -> None:
    """The study cannot go on: stop what runs; `conclude` then writes `failed` with this message."""
    if study.state not in (StudyState.CANCELLING, StudyState.FAILED):
        if study.state is StudyState.STOPPING or study.running():
            enter(session, study, StudyState.CANCELLING, message)
        else:
            _finish(session, study, StudyState.FAILED, message)


def conclude(session: Session, study: LiveStudy) -> None:
    """Take the step that was waiting for the last running slice, if there is none left.

    A study that is being confirmed follows its confirmation instead.
    """
    if study.running() or not study.searching:
        return
    if study.state is StudyState.PAUSING:
        enter(session, study, StudyState.PAUSED)
    elif study.state is StudyState.STOPPING:
        complete(session, study, study.message)
    elif study.state is StudyState.CANCELLING:
        _finish(session, study, StudyState.FAILED if study.message else StudyState.CANCELLED, study.message)


def complete(session: Session, study: LiveStudy, reason: str) -> None:
    """Nothing is left to search. Nothing may run. What is to be confirmed is confirmed first, see `confirmation`."""
    if study.resolved.confirm is None:
        _finish(session, study, StudyState.COMPLETED, reason)
    else:
        reason = _with_what_is_lacking(study, reason)
        _close(session, study)
        study.search_ended = reason


def end_confirmed(session: Session, study: LiveStudy, state: StudyState, message: str) -> None:
    """Its confirmation has ended, or there is nothing to confirm."""
    _finish(session, study, state, message)


def say(session: Session, study: LiveStudy, message: str) -> None:
    """Change the study's message, with an event."""
    if message != study.message:
        dispatch.update_study(session, study.id, message=message)
        payload = {"state": str(study.state), "message": message}
        dispatch.add_event(session, study.project_id, study.id, EventKind.STUDY_STATE, payload)
        study.message, study.note_due = message, True


def end_unstarted(session: Session, study: LiveStudy, state: StudyState, message: str = "") -> None:
    """End a study that has no running slice (queued or paused) as completed or cancelled."""
    _finish(session, study, state, message)


def _finish(session: Session, study: LiveStudy, state: StudyState, message: str) -> None:
    if state is not StudyState.FAILED:
        message = _with_what_is_lacking(study, message)
    _close(session, study)
    study.search_ended = None
    enter(session, study, state, message)


def _with_what_is_lacking(study: LiveStudy, message: str) -> str:
    """The message with a clause on the trial that leads and is left unfinished, if there is one."""
    if not study.searching or study.resolved.confirmation is not None:
        return message
    view = study.view()
    if len(view.objectives) > 1:
        view = Scalarization(view).searched(study.resolved.search.strategy)
    return "; ".join(filter(None, (message, ranking.what_the_leader_lacked(view))))


def _close(session: Session, study: LiveStudy) -> None:
    dispatch.drop_slices(session, study.id)
    study.slices.clear()
    for trial in study.trials():
        if not trial.state.is_finished():
            _close_trial(session, study, trial.number)


def _close_trial(session: Session, study: LiveStudy, number: int) -> None:
    """A paused trial becomes PRUNED with its last loss; one that never reached a rung becomes FAIL."""
    trial = study.trial(number)
    trial_id, losses = trial._trial_id, trial.intermediate_values
    study.storage.set_trial_user_attr(trial_id, "hpo_state", "ended")
    if losses:
        last = losses[max(losses)]
        study.storage.set_trial_state_values(trial_id, TrialState.PRUNED, study.values(number, last))
        trial_notes.write(study, number)
        reason = f"the study ended while the trial was paused at {max(losses)} examples"
        dispatch.add_event(
            session, study.project_id, study.id, EventKind.TRIAL_PRUNED, {"reason": reason, "loss": last}, number
        )
        return
    message = "the study ended before the trial reached its first rung"
    study.storage.set_trial_user_attr(trial_id, "outcome", str(Outcome.PREEMPTED))
    study.storage.set_trial_user_attr(trial_id, "message", message)
    study.storage.set_trial_state_values(trial_id, TrialState.FAIL)
    trial_notes.write(study, number)
    payload = {"outcome": str(Outcome.PREEMPTED), "message": message}
    dispatch.add_event(session, study.project_id, study.id, EventKind.TRIAL_FAILED, payload, number)
