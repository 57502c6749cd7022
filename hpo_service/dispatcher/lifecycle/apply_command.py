"""Doing what the API asked for. Every intent ends as done or as refused with its reason."""

import logging
from collections.abc import Callable
from typing import Any

from optuna.trial import TrialState, create_trial
from sqlalchemy.orm import Session

from hpo_service.core.errors import Conflict, HpoError
from hpo_service.core.messages import EventKind, IntentKind
from hpo_service.core.study_rules import TERMINAL, StudyState
from hpo_service.dispatcher.jobs.jobs import apply_ended_check
from hpo_service.dispatcher.lifecycle import study_state
from hpo_service.dispatcher.lifecycle.open_study import open_study
from hpo_service.dispatcher.state.live_studies import LiveStudy
from hpo_service.search.strategies.ranking import CLOSING
from hpo_service.spec import ResolvedStudy
from hpo_service.storage.queries import dispatch
from hpo_service.storage.tables import Intent

log = logging.getLogger(__name__)

_STOPPED = "stopped by the user"


def fulfil(session: Session, study: LiveStudy, intent: Intent) -> bool:
    """Apply one intent inside the dispatcher's transaction. False if it is refused."""
    kind = IntentKind(intent.kind)
    study.news()
    try:
        _ACTIONS[kind](session, study, dict(intent.payload))
    except HpoError as error:
        log.warning("study %s: intent %s is refused: %s", study.name, kind, error.detail)
        dispatch.finish_intent(session, intent.id, error.detail)
        payload = {"intent": str(kind), "error": error.detail}
        dispatch.add_event(session, study.project_id, study.id, EventKind.INTENT_REFUSED, payload)
        return False
    dispatch.finish_intent(session, intent.id, None)
    return True


def _create(session: Session, study: LiveStudy, payload: dict[str, Any]) -> None:
    """Open the Optuna study; the baseline becomes trial 0, then the known-good points."""
    if study.optuna_study_id is not None:
        raise Conflict(f"study {study.name!r} is open already.")
    open_study(session, study)
    if study.resolved.baseline is not None:
        _queue_trial(session, study, study.resolved.baseline, {"baseline": True})
    points = study.resolved.enqueue
    for index, point in enumerate(points):
        by = "preset" if index >= len(points) - study.resolved.preset_points else "spec"
        _queue_trial(session, study, point, {"enqueued_by": by})
    apply_ended_check(session, study)


def _queue_trial(session: Session, study: LiveStudy, point: dict[str, Any], attrs: dict[str, Any]) -> None:
    assert study.optuna_study_id is not None
    fixed = study.space.point(point)
    template = create_trial(
        state=TrialState.WAITING,
        user_attrs=attrs,
        system_attrs={"fixed_params": fixed},
    )
    trial_id = study.storage.create_new_trial(study.optuna_study_id, template)
    number = study.storage.get_trial(trial_id).number
    payload = {"parameters": point, "baseline": attrs.get("baseline", False)}
    dispatch.add_event(session, study.project_id, study.id, EventKind.TRIAL_QUEUED, payload, number)


def _pause(session: Session, study: LiveStudy, payload: dict[str, Any]) -> None:
    target = StudyState.PAUSED if study.state is StudyState.QUEUED else StudyState.PAUSING
    study_state.enter(session, study, target)
    study_state.conclude(session, study)


def _resume(session: Session, study: LiveStudy, payload: dict[str, Any]) -> None:
    if study.state not in (StudyState.PAUSED, StudyState.PAUSING):
        raise Conflict(f"study {study.name!r} is {study.state}; only a paused study can be resumed.")
    study_state.enter(session, study, StudyState.RUNNING)


def _stop(session: Session, study: LiveStudy, payload: dict[str, Any]) -> None:
    if study.state is StudyState.QUEUED:
        study_state.end_unstarted(session, study, StudyState.COMPLETED, _STOPPED)
        return
    study_state.enter(session, study, StudyState.STOPPING, _STOPPED)
    study_state.conclude(session, study)


def _cancel(session: Session, study: LiveStudy, payload: dict[str, Any]) -> None:
    if study.state in (StudyState.QUEUED, StudyState.PAUSED):
        study_state.end_unstarted(session, study, StudyState.CANCELLED)
        return
    study_state.enter(session, study, StudyState.CANCELLING)
    study_state.conclude(session, study)


def _enqueue(session: Session, study: LiveStudy, payload: dict[str, Any]) -> None:
    _require_live(study, "take another trial")
    if study.trial_count() >= study.resolved.budget.max_trials:
        raise Conflict(
            f"study {study.name!r} has all of its {study.resolved.budget.max_trials} trials; "
            "extend budget.max_trials first."
        )
    _queue_trial(session, study, payload["parameters"], {"enqueued_by": "person"})


def _extend(session: Session, study: LiveStudy, payload: dict[str, Any]) -> None:
    _require_live(study, "be extended")
    # It was asked for before the first slice pinned the dtype, perhaps.
    pins = {"model": study.resolved.model, "dtype_device": study.resolved.dtype_device}
    study.adopt(ResolvedStudy.model_validate(payload["resolved"]).model_copy(update=pins))
    study.closing = ""
    study.memory = {name: value for name, value in study.memory.items() if name != CLOSING}
    dispatch.update_study(session, study.id, resolved=study.resolved.model_dump(mode="json"), memory=study.memory)
    changed = {"budget": payload["resolved"]["budget"], "space": payload["resolved"]["space"]}
    dispatch.add_event(session, study.project_id, study.id, EventKind.STUDY_CHANGED, changed)


def _delete(session: Session, study: LiveStudy, payload: dict[str, Any]) -> None:
    if study.state not in TERMINAL:
        raise Conflict(f"study {study.name!r} is {study.state}; cancel it before you delete it.")
    forget(session, study)


def forget(session: Session, study: LiveStudy) -> None:
    """Remove an ended study from what users and Optuna see."""
    if study.optuna_study_id is not None:
        study.storage.delete_study(study.optuna_study_id)
        study.optuna_study_id = None
    dispatch.delete_study(session, study.id)


def _require_live(study: LiveStudy, what: str) -> None:
    if not study.searching:
        raise Conflict(f"the search of study {study.name!r} has ended and it cannot {what}; clone it instead.")
    if study.state in TERMINAL or study.state in (StudyState.STOPPING, StudyState.CANCELLING):
        raise Conflict(f"study {study.name!r} is {study.state} and cannot {what}; clone it instead.")


_ACTIONS: dict[IntentKind, Callable[[Session, LiveStudy, dict[str, Any]], None]] = {
    IntentKind.CREATE: _create,
    IntentKind.PAUSE: _pause,
    IntentKind.RESUME: _resume,
    IntentKind.STOP: _stop,
    IntentKind.CANCEL: _cancel,
    IntentKind.ENQUEUE: _enqueue,
    IntentKind.EXTEND: _extend,
    IntentKind.DELETE: _delete,
}
