"""What becomes of the workers and attempts of earlier dispatchers when another one takes over."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Select, case, func, select, update
from sqlalchemy.orm import Session

from hpo_service.core.study_rules import Cause, cost_usd
from hpo_service.storage.queries.attempt_ends import close_attempt
from hpo_service.storage.queries.failures import counted
from hpo_service.storage.queries.workers import GONE, QUARANTINED
from hpo_service.storage.tables import Attempt, Job, Slice, Worker
from trainer.spec import Outcome, SliceResult, Usage

Token = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What goes on: row ids of the workers by name, and the name of the worker of each attempt."""

    workers: dict[str, int] = field(default_factory=dict)
    attempts: dict[Token, str] = field(default_factory=dict)


def keep(session: Session, executor: str, epoch: int, held: Mapping[str, Collection[Token]]) -> Kept:
    """Make the workers that live on belong to this epoch. Of the attempts that they hold, those that count go on."""
    rows = session.execute(
        update(Worker)
        .where(Worker.executor == executor, Worker.name.in_(held), Worker.gone_at.is_(None))
        .values(epoch=epoch)
        .returning(Worker.id, Worker.name)
    )
    names = {row.id: row.name for row in rows}
    slices = (
        select(Slice.id, Slice.attempt, Attempt.worker_id)
        .join(Attempt, (Attempt.slice_id == Slice.id) & (Attempt.attempt == Slice.attempt))
        .where(Slice.state == "running", Attempt.worker_id.in_(names))
    )
    jobs = select(Job.id, Job.attempt, Job.worker_id).where(Job.state == "running", Job.worker_id.in_(names))
    running = [*session.execute(slices), *session.execute(jobs)]
    attempts = {(row.id, row.attempt): names[row.worker_id] for row in running}
    return Kept(
        workers={name: worker_id for worker_id, name in names.items()},
        attempts={token: name for token, name in attempts.items() if token in held[name]},
    )


def lose_attempts(
    session: Session, epoch: int, message: str, kept: Kept, usd_per_device_hour: Callable[[str], float]
) -> int:
    """Close every other attempt of an earlier dispatcher: its workers are gone. How many there were.

    What they took is estimated: nobody knows when they ended, so until they were last heard of.
    """
    going_on = [token[0] for token in kept.attempts]
    lost = session.execute(_held(going_on)).all()
    for row in lost:
        usage = Usage(lost_seconds=float(row.seconds), devices=max(1, row.devices))
        result = SliceResult(
            slice_id=row.slice_id,
            attempt=row.attempt,
            outcome=Outcome.LOST,
            examples_seen=0,
            usage=usage,
            device=row.device,
            message=message,
        )
        usd = cost_usd(usage.lost_seconds, usage.devices, usd_per_device_hour(row.device))
        close_attempt(session, result, usd, str(Cause.DISPATCHER_LOST))
    session.execute(
        update(Slice)
        .where(Slice.state == "running", Slice.id.not_in(going_on))
        .values(
            state="waiting",
            progress={},
            **counted(Slice.failures, Slice.failures_by_cause, Cause.DISPATCHER_LOST),
        )
    )
    lost_jobs = session.execute(
        update(Job)
        .where(Job.state == "running", Job.id.not_in(going_on))
        .values(state="waiting", outcome=str(Outcome.LOST))
        .returning(Job.id)
    ).all()
    session.execute(
        update(Worker)
        .where(Worker.gone_at.is_(None), Worker.epoch < epoch)
        .values(
            state=case((Worker.state == QUARANTINED, QUARANTINED), else_=GONE),
            message=case((Worker.state == QUARANTINED, Worker.message), else_=message),
            gone_at=func.clock_timestamp(),
        )
    )
    return len(lost) + len(lost_jobs)


def _held(going_on: Collection[int]) -> Select[int, int, float, str, int]:
    """The open attempts of other slices, with the seconds from their dispatch to their last sign of life."""
    heard_at = func.greatest(func.coalesce(Slice.heard_at, Attempt.started_at), Attempt.started_at)
    return (
        select(
            Attempt.slice_id,
            Attempt.attempt,
            func.extract("epoch", heard_at - Attempt.started_at).label("seconds"),
            func.coalesce(Worker.device, "").label("device"),
            func.coalesce(func.jsonb_array_length(Worker.places), 1).label("devices"),
        )
        .join(Slice, Slice.id == Attempt.slice_id)
        .outerjoin(Worker, Worker.id == Attempt.worker_id)
        .where(Attempt.outcome.is_(None), Attempt.slice_id.not_in(going_on))
        .order_by(Attempt.slice_id)
    )
