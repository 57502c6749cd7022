"""Workers as documents, and what can be asked of them. The dispatcher carries it out."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy.orm import Session

from hpo_service.core.errors import Conflict, NotFound
from hpo_service.core.messages import IntentKind
from hpo_service.services.execution.schemas import HeldSliceDocument, WorkerDocument
from hpo_service.services.studies.read import read_token
from hpo_service.services.studies.schemas import Page
from hpo_service.storage.queries import audit, workers
from hpo_service.storage.tables import DEFAULT_PROJECT_ID, Worker


class _Rule(NamedTuple):
    """Which workers it can be asked of, and what that makes of them."""

    states: tuple[str, ...]
    participle: str


_RULES: dict[IntentKind, _Rule] = {
    IntentKind.WORKER_DRAIN: _Rule((workers.READY,), "drained"),
    IntentKind.WORKER_QUARANTINE: _Rule((workers.READY, workers.DRAINING), "quarantined"),
    IntentKind.WORKER_RELEASE: _Rule((workers.QUARANTINED,), "released"),
}


def worker_counts(session: Session) -> dict[str, int]:
    """How many workers there are that are not gone, by state."""
    return workers.count_by_state(session, DEFAULT_PROJECT_ID)


def list_workers(
    session: Session, project_id: int, *, page_size: int, page_token: str | None, gone: bool
) -> Page[WorkerDocument]:
    """Workers, the newest first; with `gone`, those of the past too."""
    before = None if page_token is None else read_token(page_token)
    rows = workers.newest_first(session, project_id, before_id=before, limit=page_size + 1, gone=gone)
    return Page[WorkerDocument](
        items=_documents(session, project_id, rows[:page_size]),
        next_page_token=str(rows[page_size - 1].id) if len(rows) > page_size else None,
    )


def ask_worker(session: Session, project_id: int, name: str, kind: IntentKind, reason: str) -> WorkerDocument:
    """Ask for a worker to be drained, quarantined or released.

    Raises:
        NotFound: there never was a worker of this name.
        Conflict: no worker of this name is in a state that allows it.
    """
    rule = _RULES[kind]
    worker = workers.newest(session, project_id, name, rule.states)
    if worker is None:
        known = workers.newest(session, project_id, name, None)
        if known is None:
            raise NotFound(f"there is no worker {name!r}; `hpo worker list` shows them all.")
        raise Conflict(
            f"worker {name!r} is {known.state}; only a worker that is {' or '.join(rule.states)} can be "
            f"{rule.participle}."
        )
    workers.add_intent(session, project_id, kind, {"worker": name, "reason": reason or f"{rule.participle} by a user"})
    audit.tell(session, reason=reason)
    return _documents(session, project_id, [worker])[0]


def _documents(session: Session, project_id: int, rows: Sequence[Worker]) -> list[WorkerDocument]:
    held: dict[int, list[HeldSliceDocument]] = {}
    for running in workers.running_on(session, project_id, [row.id for row in rows if row.gone_at is None]):
        document = HeldSliceDocument(
            study=running.study,
            trial_number=running.trial_number,
            slice_id=running.slice_id,
            attempt=running.attempt,
        )
        held.setdefault(running.worker_id, []).append(document)
    pending = workers.open_intent_kinds(session, project_id)
    return [
        WorkerDocument.model_validate(
            {
                "id": row.id,
                "name": row.name,
                "executor": row.executor,
                "state": row.state,
                "pending": [] if row.state == workers.GONE else pending.get(row.name, []),
                "node": row.node,
                "places": row.places,
                "device": row.device,
                "software": row.software,
                "auto_dtype": row.auto_dtype,
                "repeatable": row.repeatable,
                "message": row.message,
                "slices": held.get(row.id, []),
                "started_at": row.started_at,
                "gone_at": row.gone_at,
            }
        )
        for row in rows
    ]
