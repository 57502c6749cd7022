"""The few events that somebody wants to be told of at once, as sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from hpo_service.core.errors import NotFound
from hpo_service.core.messages import EventKind
from hpo_service.core.study_rules import StudyState
from hpo_service.services.studies.best import show_best
from hpo_service.storage.queries import outbox
from hpo_service.storage.queries.outbox import OutboxEvent
from hpo_service.storage.tables import Study
from trainer.spec import Outcome

_ENDS = {StudyState.COMPLETED: "study.completed", StudyState.FAILED: "study.failed"}


@dataclass(frozen=True, kw_only=True)
class Notice:
    """`kind`: study.completed, study.failed, study.budget, study.diverged, worker.lost."""

    event_id: int
    kind: str
    at: datetime
    project: str
    study: str | None
    sentence: str
    facts: Mapping[str, Any]


def read_notices(session: Session, events: Sequence[OutboxEvent]) -> list[Notice]:
    """What the events are worth, in order. The session is not needed afterwards."""
    studies = outbox.studies_called(session, {event.study_id for event in events if event.study_id is not None})
    projects = outbox.project_names(session, {event.project_id for event in events})
    notices = list[Notice]()
    for event in events:
        study = None if event.study_id is None else studies[event.study_id]
        found = _worker(event) if study is None else _of_study(session, study, event)
        if found is not None:
            kind, sentence, facts = found
            notices.append(
                Notice(
                    event_id=event.id,
                    kind=kind,
                    at=event.created_at,
                    project=projects[event.project_id],
                    study=None if study is None else study.name,
                    sentence=sentence,
                    facts=facts,
                )
            )
    return notices


_Found = tuple[str, str, dict[str, Any]]


def _worker(event: OutboxEvent) -> _Found | None:
    if event.kind != EventKind.WORKER_LOST:
        return None
    worker, cause, message = (str(event.payload.get(name, "")) for name in ("worker", "cause", "message"))
    facts = {"worker": worker, "cause": cause, "message": message}
    return "worker.lost", f"Worker {worker} was lost ({cause}): {message}", facts


def _of_study(session: Session, study: Study, event: OutboxEvent) -> _Found | None:
    """A confirmation's end is told as its study's."""
    if study.parent_study_id is not None:
        return None
    payload = event.payload
    if event.kind == EventKind.STUDY_STATE and payload["state"] in _ENDS:
        return _ended(session, study, StudyState(payload["state"]), str(payload.get("message", "")))
    if event.kind == EventKind.BUDGET_NEARLY_SPENT:
        return "study.budget", f"Study {study.name}: {payload['message']}", dict(payload)
    if event.kind == EventKind.TRIAL_FAILED and payload.get("outcome") == Outcome.DIVERGED:
        if outbox.failed_before(session, event, str(Outcome.DIVERGED)):
            return None
        facts = {"trial": event.trial_number, "message": payload.get("message", "")}
        sentence = f"Study {study.name}: trial {event.trial_number} diverged, the first to do so: {facts['message']}"
        return "study.diverged", sentence, facts
    return None


def _ended(session: Session, study: Study, state: StudyState, message: str) -> _Found:
    facts: dict[str, Any] = {"message": message}
    why = f": {message}" if message else ""
    if state is StudyState.FAILED:
        return _ENDS[state], f"Study {study.name} failed{why}", facts
    best = _best(session, study)
    facts |= best
    won = f" Best: trial {best['best_trial']}, loss {best['best_loss']:.5g}." if best else " No trial reached a rung."
    return _ENDS[state], f"Study {study.name} is completed{why}.{won}", facts


def _best(session: Session, study: Study) -> dict[str, Any]:
    if study.deleted_at is not None:
        return {}
    try:
        best = show_best(session, study.project_id, study.name)
    except NotFound:
        return {}
    return {"best_trial": best.trial_number, "best_loss": best.loss, "parameters": dict(best.parameters)}
