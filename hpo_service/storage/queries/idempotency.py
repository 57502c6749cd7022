"""Remembered answers of requests that came with an idempotency key."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from hpo_service.storage.tables import IdempotencyKey

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:key, :project))")
_EXPIRED = IdempotencyKey.created_at < func.clock_timestamp() - text("interval '24 hours'")


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """An answer that was given."""

    request_sha256: str
    status: int
    body: dict[str, Any]


def lock(session: Session, project_id: int, key: str) -> None:
    """Make requests with the same key wait for each other until the transaction ends."""
    session.execute(_LOCK, {"key": key, "project": project_id})


def find(session: Session, project_id: int, key: str) -> Remembered | None:
    """The answer given to this key within the last 24 hours."""
    row = session.execute(
        select(IdempotencyKey.request_sha256, IdempotencyKey.status, IdempotencyKey.body).where(
            IdempotencyKey.project_id == project_id, IdempotencyKey.key == key, ~_EXPIRED
        )
    ).one_or_none()
    return None if row is None else Remembered(request_sha256=row.request_sha256, status=row.status, body=row.body)


def remember(session: Session, project_id: int, key: str, answer: Remembered) -> None:
    """Keep the answer in the transaction that did the work. What was kept for long enough goes."""
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.project_id == project_id, _EXPIRED))
    session.add(
        IdempotencyKey(
            project_id=project_id,
            key=key,
            request_sha256=answer.request_sha256,
            status=answer.status,
            body=answer.body,
        )
    )
