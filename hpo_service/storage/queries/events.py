"""Reading a study's history."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from hpo_service.core.messages import EventKind
from hpo_service.storage.tables import Event


class EventRow(BaseModel):
    """One event; ids commit in order, so reading after the last id misses nothing."""

    model_config = ConfigDict(frozen=True)

    id: int
    kind: str
    trial_number: int | None
    payload: dict[str, Any]
    created_at: datetime


def events_after(session: Session, project_id: int, study_id: int, after: int, limit: int = 500) -> list[EventRow]:
    """The study's events with an id above `after`, in order."""
    return _read(session, _of(project_id, study_id).where(Event.id > after).order_by(Event.id).limit(limit))


def service_events_after(session: Session, project_id: int, after: int, limit: int) -> list[EventRow]:
    """Events of no study with an id above `after`, in order. They all belong to the first project."""
    columns = (Event.id, Event.kind, Event.trial_number, Event.payload, Event.created_at)
    query = select(*columns).where(Event.project_id == project_id, Event.study_id.is_(None), Event.id > after)
    return _read(session, query.order_by(Event.id).limit(limit))


def last_id(session: Session, project_id: int, study_id: int) -> int:
    """Id of the study's newest event; 0 before the first. Whatever changes a study of the dispatcher's has one."""
    query = select(func.max(Event.id)).where(Event.project_id == project_id, Event.study_id == study_id)
    return session.execute(query).scalar_one() or 0


def decisions_after(session: Session, project_id: int, study_id: int, after: int, limit: int) -> list[EventRow]:
    """Events with an id above `after` that began a slice because of a decision, in order."""
    decided = _decided(_of(project_id, study_id)).where(Event.id > after)
    return _read(session, decided.order_by(Event.id).limit(limit))


def latest_with_number(session: Session, project_id: int, study_id: int, number: str) -> EventRow | None:
    """The last decision that has this number behind it."""
    found = _decided(_of(project_id, study_id)).where(Event.payload["numbers"].has_key(number))
    return next(iter(_read(session, found.order_by(Event.id.desc()).limit(1))), None)


def _of(project_id: int, study_id: int) -> Select[Any]:
    columns = (Event.id, Event.kind, Event.trial_number, Event.payload, Event.created_at)
    return select(*columns).where(Event.project_id == project_id, Event.study_id == study_id)


def _decided(query: Select[Any]) -> Select[Any]:
    return query.where(Event.kind == str(EventKind.SLICE_STARTED), Event.payload.has_key("decision_number"))


def _read(session: Session, query: Select[Any]) -> list[EventRow]:
    return [
        EventRow(
            id=row.id, kind=row.kind, trial_number=row.trial_number, payload=row.payload, created_at=row.created_at
        )
        for row in session.execute(query)
    ]
