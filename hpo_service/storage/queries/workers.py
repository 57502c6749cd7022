"""Workers: what the dispatcher writes of them in its fenced transactions, and what everybody may know."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, case, func, select, update
from sqlalchemy.orm import Session

from hpo_service.core.messages import IntentKind
from hpo_service.storage.tables import DEFAULT_PROJECT_ID, Attempt, Intent, Slice, Study, Worker

GONE, READY, DRAINING, QUARANTINED = "gone", "ready", "draining", "quarantined"


@dataclass(frozen=True, kw_only=True)
class Running:
    """A slice that a worker holds."""

    worker_id: int
    study: str
    trial_number: int
    slice_id: int
    attempt: int


def count_by_state(session: Session, project_id: int) -> dict[str, int]:
    """How many workers there are that are not gone."""
    query = (
        select(Worker.state, func.count().label("workers"))
        .where(Worker.project_id == project_id, Worker.state != GONE)
        .group_by(Worker.state)
    )
    return {row.state: row.workers for row in session.execute(query)}


def register(
    session: Session,
    *,
    executor: str,
    name: str,
    node: str,
    places: Sequence[str],
    device: str,
    software: dict[str, str],
    auto_dtype: str,
    epoch: int,
) -> int:
    """Write a worker that became ready; its id."""
    worker = Worker(
        project_id=DEFAULT_PROJECT_ID,
        executor=executor,
        name=name,
        state=READY,
        node=node,
        places=list(places),
        device=device,
        software=dict(software),
        auto_dtype=auto_dtype,
        epoch=epoch,
    )
    session.add(worker)
    session.flush()
    return worker.id


def note_repeatable(session: Session, worker_id: int, repeatable: bool) -> None:
    """Write whether a step that the worker took twice was the same; once it was not, that stays."""
    verdict = func.coalesce(Worker.repeatable, True) if repeatable else False
    session.execute(update(Worker).where(Worker.id == worker_id).values(repeatable=verdict))


def set_state(session: Session, worker_id: int, state: str, message: str) -> None:
    """Say where a worker stands, and why."""
    session.execute(update(Worker).where(Worker.id == worker_id).values(state=state, message=message))


def end(session: Session, worker_id: int, message: str) -> None:
    """Record that a worker's process has ended. A quarantined one stays so, for its places' sake."""
    session.execute(
        update(Worker)
        .where(Worker.id == worker_id)
        .values(
            state=case((Worker.state == QUARANTINED, QUARANTINED), else_=GONE),
            message=case((Worker.state == QUARANTINED, Worker.message), else_=message),
            gone_at=func.clock_timestamp(),
        )
    )


def release(session: Session, worker_id: int) -> None:
    """The places of a quarantined worker are free again. If its process has not ended yet, it is drained."""
    state = case((Worker.gone_at.is_(None), DRAINING), else_=GONE)
    session.execute(update(Worker).where(Worker.id == worker_id).values(state=state))


def quarantined(session: Session) -> Sequence[Worker]:
    """Workers whose places take no work."""
    return session.scalars(select(Worker).where(Worker.state == QUARANTINED).order_by(Worker.id)).all()


def ending(session: Session, worker_ids: Collection[int]) -> Sequence[str]:
    """Names of those of these workers that get nothing more."""
    query = select(Worker.name).where(Worker.id.in_(worker_ids), Worker.state.in_([DRAINING, QUARANTINED]))
    return session.scalars(query).all()


def newest(session: Session, project_id: int, name: str, states: Collection[str] | None) -> Worker | None:
    """The newest worker of this name, of those in one of these states (None: any). Names come again after a restart."""
    query = select(Worker).where(Worker.project_id == project_id, Worker.name == name)
    if states is not None:
        query = query.where(Worker.state.in_(states))
    return session.scalars(query.order_by(Worker.id.desc()).limit(1)).one_or_none()


def newest_first(
    session: Session, project_id: int, *, before_id: int | None, limit: int, gone: bool
) -> Sequence[Worker]:
    """Workers of the project; without `gone`, those that are there or whose places are excluded."""
    query = select(Worker).where(Worker.project_id == project_id)
    if not gone:
        query = query.where(Worker.state != GONE)
    if before_id is not None:
        query = query.where(Worker.id < before_id)
    return session.scalars(query.order_by(Worker.id.desc()).limit(limit)).all()


def add_intent(session: Session, project_id: int, kind: IntentKind, payload: dict[str, Any]) -> None:
    """Ask the dispatcher to do something with a worker."""
    session.add(Intent(project_id=project_id, kind=str(kind), payload=payload))
    session.flush()


def open_intent_kinds(session: Session, project_id: int) -> dict[str, list[str]]:
    """What was asked of workers and not carried out yet, in order, by the worker's name."""
    kinds = [str(kind) for kind in (IntentKind.WORKER_DRAIN, IntentKind.WORKER_QUARANTINE, IntentKind.WORKER_RELEASE)]
    query = select(Intent.payload["worker"].astext, Intent.kind).where(
        Intent.project_id == project_id, Intent.done_at.is_(None), Intent.kind.in_(kinds)
    )
    found: dict[str, list[str]] = {}
    for name, kind in session.execute(query.order_by(Intent.id)):
        found.setdefault(name, []).append(kind)
    return found


def running_on(session: Session, project_id: int, worker_ids: Collection[int]) -> list[Running]:
    """The slices of the project that these workers hold, in the order in which they were made."""
    rows: Any = session.execute(
        select(Attempt.worker_id, Study.name, Slice.trial_number, Slice.id, Slice.attempt)
        .join(Slice, and_(Slice.id == Attempt.slice_id, Slice.project_id == Attempt.project_id))
        .join(Study, and_(Study.id == Slice.study_id, Study.project_id == Slice.project_id))
        .where(
            Slice.project_id == project_id,
            Slice.state == "running",
            Slice.attempt == Attempt.attempt,
            Attempt.worker_id.in_(worker_ids),
        )
        .order_by(Slice.id)
    )
    return [
        Running(worker_id=worker_id, study=name, trial_number=trial, slice_id=slice_id, attempt=attempt)
        for worker_id, name, trial, slice_id, attempt in rows
    ]
