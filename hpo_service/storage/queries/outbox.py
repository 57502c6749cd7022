"""How far a sink has told the events, and the events that it tells next. Sinks tell those of all projects."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zlib import crc32

from sqlalchemy import Connection, func, select, text, update
from sqlalchemy.orm import Session

from hpo_service.storage.tables import DEFAULT_PROJECT_ID, Event, OutboxCursor, Project, Study

#: first half of the keys of our advisory locks, so that nobody else's are met
_LOCKS = 1_752_461_151
_OPEN = text(
    """
    INSERT INTO hpo.outbox_cursors (sink, project_id, last_event_id)
    VALUES (:sink, :project, CASE WHEN :from_now THEN (SELECT coalesce(max(id), 0) FROM hpo.events) ELSE 0 END)
    ON CONFLICT (sink) DO NOTHING
    """
)
_COUNT = text(
    """
    UPDATE hpo.outbox_cursors
       SET results = results || jsonb_build_object(
               CAST(:result AS text), coalesce((results ->> CAST(:result AS text))::bigint, 0) + 1)
     WHERE sink = :sink
    """
)
_HOLD = text("SELECT pg_try_advisory_lock(:group, :sink)")


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """Where a sink stands. `identity` is this outbox's among all that tell the same receiver."""

    identity: str
    last_event_id: int


@dataclass(frozen=True, kw_only=True)
class OutboxEvent:
    """One committed event."""

    id: int
    project_id: int
    study_id: int | None
    trial_number: int | None
    kind: str
    payload: dict[str, Any]
    created_at: datetime


def hold(connection: Connection, sink: str) -> bool:
    """Whether this connection may tell the sink; no other one may while it lasts. Ask again before every batch."""
    key = crc32(sink.encode()) - 2**31
    return bool(connection.execute(_HOLD, {"group": _LOCKS, "sink": key}).scalar_one())


def open_cursor(session: Session, sink: str, *, from_now: bool) -> Cursor:
    """Where the sink stands. A new one begins at the first event, or (`from_now`) behind the last."""
    session.execute(_OPEN, {"sink": sink, "project": DEFAULT_PROJECT_ID, "from_now": from_now})
    found = session.execute(
        select(OutboxCursor.identity, OutboxCursor.last_event_id).where(OutboxCursor.sink == sink)
    ).one()
    return Cursor(identity=found.identity, last_event_id=found.last_event_id)


def advance(session: Session, sink: str, before: int, after: int) -> bool:
    """Everything up to `after` is told. False, and nothing changes, if the sink does not stand at `before`."""
    moved = session.execute(
        update(OutboxCursor)
        .where(OutboxCursor.sink == sink, OutboxCursor.last_event_id == before)
        .values(last_event_id=after, moved_at=func.clock_timestamp())
        .returning(OutboxCursor.sink)
    )
    return moved.scalar_one_or_none() is not None


def count_result(session: Session, sink: str, result: str) -> None:
    """One more try to hand something over ended like this."""
    session.execute(_COUNT, {"sink": sink, "result": result})


def events_after(session: Session, after: int, limit: int) -> list[OutboxEvent]:
    """Events of all studies and of none with an id above `after`, in order."""
    columns = (
        Event.id,
        Event.project_id,
        Event.study_id,
        Event.trial_number,
        Event.kind,
        Event.payload,
        Event.created_at,
    )
    rows = session.execute(select(*columns).where(Event.id > after).order_by(Event.id).limit(limit))
    return [OutboxEvent(**row) for row in rows.mappings()]


def failed_before(session: Session, event: OutboxEvent, outcome: str) -> bool:
    """Whether a trial of the same study had failed like this already when the event happened."""
    earlier = select(Event.id).where(
        Event.project_id == event.project_id,
        Event.study_id == event.study_id,
        Event.id < event.id,
        Event.kind == event.kind,
        Event.payload["outcome"].astext == outcome,
    )
    return session.execute(earlier.limit(1)).first() is not None


def studies_called(session: Session, ids: Collection[int]) -> dict[int, Study]:
    """These studies by id, deleted ones too, with the studies that they confirm."""
    found = session.scalars(select(Study).where(Study.id.in_(ids))).all()
    parents = {study.parent_study_id for study in found if study.parent_study_id is not None} - set(ids)
    return {study.id: study for study in (*found, *session.scalars(select(Study).where(Study.id.in_(parents))))}


def project_names(session: Session, ids: Collection[int]) -> dict[int, str]:
    """Names of projects by id."""
    rows: Sequence[Any] = session.execute(select(Project.id, Project.name).where(Project.id.in_(ids))).all()
    return {row.id: row.name for row in rows}
