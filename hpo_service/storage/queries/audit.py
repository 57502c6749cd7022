"""The audit log: a chain of rows for each project, to which transactions add what they did as the last thing they do.

A chain for each project, not one for all: its projects see nothing of each other, so each can be checked by those whom
it belongs to, and none waits for another. Within a project those who add a row wait for each other on an advisory lock.
It is taken last, right before the commit, so it is held for three statements, and nobody waits for anything else
meanwhile: there is no circle of waiting.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import event, insert, select, text
from sqlalchemy.orm import Session

from hpo_service.storage.audit_chain import NO_ROWS, Head, Link, canonical
from hpo_service.storage.audit_tables import AuditHead, AuditRow
from trainer.common.logs import mask_secrets, one_line

_DUE = "entry of the audit log"
_ADDED = "row of the audit log was added"
#: when it is held: the time then
_LOCK = text("SELECT clock_timestamp() FROM pg_advisory_xact_lock(hashtextextended('audit', :project))")
_HAS_CHANGED = text("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")
_LONGEST_OBJECT = 200
_LONGEST_DETAILS = 4000
_CHUNK_ROWS = 2000


class AuditOutcome(StrEnum):
    """What became of it."""

    DONE = "done"  #: written in the transaction of the change
    UNCHANGED = "unchanged"  #: there was nothing to change
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(kw_only=True)
class AuditEntry:
    """Who does what; it becomes a row where a transaction changes something, and may be told more until then."""

    project_id: int
    who: str
    key_id: int | None
    action: str
    object: str
    status: int | None = None
    request_id: str | None = None
    client: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    recorded: bool = False  #: a transaction with its row was committed


def watch(session: Session, entry: AuditEntry) -> Session:
    """Each transaction of the session that changes something adds the entry as a row, or is not committed."""
    session.info[_DUE] = entry
    return session


def watching(entry: AuditEntry) -> dict[str, Any]:
    """`info` of sessions that are to be as after `watch`."""
    return {_DUE: entry}


def tell(session: Session, object: str | None = None, **details: object) -> None:
    """Say what it is that the session's transaction changes, where the entry could not know; nothing if none is due."""
    entry: AuditEntry | None = session.info.get(_DUE)
    if entry is not None:
        entry.object = object or entry.object
        entry.details |= details


def add(session: Session, entry: AuditEntry, outcome: AuditOutcome) -> None:
    """Add a row to the chain of the entry's project. The transaction should end soon: others wait for it."""
    at = session.execute(_LOCK, {"project": entry.project_id}).scalar_one()
    last = head(session, entry.project_id)
    link = Link(
        project_id=entry.project_id,
        number=last.number + 1,
        at=at,
        who=entry.who,
        key_id=entry.key_id,
        action=entry.action,
        object=one_line(entry.object)[:_LONGEST_OBJECT],
        outcome=str(outcome),
        status=entry.status,
        request_id=entry.request_id,
        client=entry.client,
        details=_written(entry.details),
        previous=last.hash,
    )
    session.execute(insert(AuditRow).values(**{name: getattr(link, name) for name in _FIELDS}, hash=link.hash()))


def newest_first(
    session: Session,
    project_id: int,
    *,
    before: int | None,
    since: datetime | None,
    action: str | None,
    key_id: int | None,
    limit: int,
) -> list[AuditRow]:
    """Up to `limit` rows of the project."""
    query = select(AuditRow).where(AuditRow.project_id == project_id)
    wanted: Mapping[Any, object] = {AuditRow.action: action, AuditRow.key_id: key_id}
    query = query.where(*(column == value for column, value in wanted.items() if value is not None))
    if before is not None:
        query = query.where(AuditRow.number < before)
    if since is not None:
        query = query.where(AuditRow.at >= since)
    return list(session.scalars(query.order_by(AuditRow.number.desc()).limit(limit)))


def head(session: Session, project_id: int) -> Head:
    """Where the database says that the project's chain ends."""
    query = select(AuditHead.number, AuditHead.hash).where(AuditHead.project_id == project_id)
    row = session.execute(query).one_or_none()
    return NO_ROWS if row is None else Head(row.number, row.hash)


def links(session: Session, project_id: int) -> Iterator[tuple[Link, str]]:
    """All rows of the project by number, as they are read, each with the hash that is written beside it."""
    columns = [getattr(AuditRow, name) for name in (*_FIELDS, "hash")]
    query = select(*columns).where(AuditRow.project_id == project_id).order_by(AuditRow.number)
    for row in session.execute(query.execution_options(yield_per=_CHUNK_ROWS)):
        values = row._asdict()
        written: str = values.pop("hash")
        yield Link(**values), written


_FIELDS = tuple(Link.__dataclass_fields__)


def _written(details: Mapping[str, Any]) -> str:
    told = canonical(_masked(details))
    return told if len(told) <= _LONGEST_DETAILS else canonical({"characters": len(told), "left_out": True})


def _masked(value: object) -> object:
    if isinstance(value, str):
        return mask_secrets(value)
    if isinstance(value, Mapping):
        return {mask_secrets(str(name)): _masked(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(item) for item in value]
    return value


@event.listens_for(Session, "before_commit")
def _add_due(session: Session) -> None:
    entry: AuditEntry | None = session.info.get(_DUE)
    if entry is None or session.in_nested_transaction():
        return
    session.flush()
    if session.execute(_HAS_CHANGED).scalar_one():
        add(session, entry, AuditOutcome.DONE)
        session.info[_ADDED] = True


@event.listens_for(Session, "after_commit")
def _note_added(session: Session) -> None:
    if session.info.pop(_ADDED, False):
        entry: AuditEntry = session.info[_DUE]
        entry.recorded = True


@event.listens_for(Session, "after_rollback")
def _forget_added(session: Session) -> None:
    session.info.pop(_ADDED, None)
