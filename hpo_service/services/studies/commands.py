"""Change studies that exist. Everything is an intent: written here, carried out by the dispatcher."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from hpo_service.core.errors import Conflict, InvalidRequest
from hpo_service.core.messages import IntentKind
from hpo_service.core.study_rules import TERMINAL, StudyState
from hpo_service.services.common.if_match import require_match
from hpo_service.services.confirmations.read import require_searching
from hpo_service.services.studies.extension import require_room_left
from hpo_service.services.studies.pending_state import expected_state, next_state, require_open
from hpo_service.services.studies.read import effective_resolved, etag, study_document
from hpo_service.services.studies.schemas import StudyDocument
from hpo_service.services.trials.read import trial_count
from hpo_service.spec import ResolvedStudy
from hpo_service.storage.queries import studies
from hpo_service.storage.tables import Intent, Study


def steer(
    session: Session, project_id: int, name: str, kind: IntentKind, *, if_match: str | None = None
) -> StudyDocument:
    """Pause, resume, stop or cancel.

    Raises:
        PreconditionFailed: `if_match` names an older spec, or another study.
        Conflict: the study, as it will stand, does not allow it.
    """
    study = studies.find_and_lock(session, project_id, name)
    intents = studies.open_intents(session, study)
    _require_match(study, intents, if_match)
    next_state(name, _expected(study, intents), kind)
    studies.add_intent(session, study, kind, {})
    return study_document(session, study)


def extend(
    session: Session,
    project_id: int,
    name: str,
    *,
    space: Mapping[str, Any],
    budget: Mapping[str, Any],
    if_match: str | None,
) -> StudyDocument:
    """Change caps and widen ranges, on top of extensions that are still to be carried out.

    Raises:
        PreconditionFailed: `if_match` names an older spec, or another study.
        InvalidSpec: the space would not only grow, a cap makes no sense or lies below what is begun or spent.
        Conflict: the study has ended or is about to.
    """
    if not space and not budget:
        raise InvalidRequest("nothing to change: send `budget` or `space`.")
    study = studies.find_and_lock(session, project_id, name)
    intents = studies.open_intents(session, study)
    _require_match(study, intents, if_match)
    require_open(name, _expected(study, intents), "be extended")
    require_searching(session, study, "be extended")
    grown = ResolvedStudy.model_validate(effective_resolved(study, intents)).extend(space, budget)
    waiting = sum(intent.kind == IntentKind.ENQUEUE for intent in intents)
    require_room_left(session, study, grown, budget, waiting)
    studies.add_intent(session, study, IntentKind.EXTEND, {"resolved": grown.model_dump(mode="json")})
    return study_document(session, study)


def enqueue(session: Session, project_id: int, name: str, parameters: Mapping[str, Any]) -> StudyDocument:
    """Ask for a point to be tried next.

    Raises:
        InvalidSpec: the point lies outside the space.
        Conflict: the study has ended or has all of its trials.
    """
    study = studies.find_and_lock(session, project_id, name)
    intents = studies.open_intents(session, study)
    require_open(name, _expected(study, intents), "take another trial")
    require_searching(session, study, "take another trial")
    resolved = ResolvedStudy.model_validate(effective_resolved(study, intents))
    resolved.search_space().point(parameters, "/parameters")
    _require_room(session, study, resolved, intents)
    studies.add_intent(session, study, IntentKind.ENQUEUE, {"parameters": dict(parameters)})
    return study_document(session, study)


def delete(session: Session, project_id: int, name: str, *, if_match: str | None = None) -> StudyDocument:
    """Forget an ended study and its snapshots.

    Raises:
        PreconditionFailed: `if_match` names an older spec, or another study.
        Conflict: it has not ended or is being deleted.
    """
    study = studies.find_and_lock(session, project_id, name)
    intents = studies.open_intents(session, study)
    _require_match(study, intents, if_match)
    if study.state not in TERMINAL:
        raise Conflict(f"study {name!r} is {study.state}; cancel it and wait for its end before you delete it.")
    if any(intent.kind == IntentKind.DELETE for intent in intents):
        raise Conflict(f"study {name!r} is being deleted already.")
    studies.add_intent(session, study, IntentKind.DELETE, {})
    return study_document(session, study)


def _require_match(study: Study, intents: Sequence[Intent], if_match: str | None) -> None:
    require_match(if_match, etag(study, intents), f"study {study.name!r}")


def _expected(study: Study, intents: Sequence[Intent]) -> StudyState:
    return expected_state(study.name, StudyState(study.state), [intent.kind for intent in intents])


def _require_room(session: Session, study: Study, resolved: ResolvedStudy, intents: Sequence[Intent]) -> None:
    points = len(resolved.enqueue) + (resolved.baseline is not None)
    known = points if study.optuna_study_id is None else trial_count(session, study)
    asked = sum(intent.kind == IntentKind.ENQUEUE for intent in intents)
    if known + asked >= resolved.budget.max_trials:
        raise Conflict(
            f"study {study.name!r} has all of its {resolved.budget.max_trials} trials; extend budget.max_trials first."
        )
