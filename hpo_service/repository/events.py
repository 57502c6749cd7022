"""Reading a study's history."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session

from hpo_service.tables import Event


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
    rows = session.execute(
        select(Event.id, Event.kind, Event.trial_number, Event.payload, Event.created_at)
        .where(Event.project_id == project_id, Event.study_id == study_id, Event.id > after)
        .order_by(Event.id)
        .limit(limit)
    ).all()
    return [
        EventRow(
            id=row.id, kind=row.kind, trial_number=row.trial_number, payload=row.payload, created_at=row.created_at
        )
        for row in rows
    ]
