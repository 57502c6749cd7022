"""What was dispatched for a study and what it consumed, as the API reads it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, and_, func, select
from sqlalchemy.orm import Session

from hpo_service.storage.queries.usage import SECONDS, total, usage_of
from hpo_service.storage.tables import Attempt, Slice, Study, Worker
from trainer.spec import Outcome, Usage

_ATTEMPTS_OF_SLICES = and_(Attempt.slice_id == Slice.id, Attempt.project_id == Slice.project_id)


@dataclass(frozen=True, kw_only=True)
class AttemptRow:
    """One attempt with the slice that it belongs to. `outcome` is None while it runs."""

    slice_id: int
    attempt: int
    trial_number: int
    until_examples: int
    slice_state: str
    outcome: str | None
    cause: str | None
    worker: str | None
    node: str | None
    message: str
    started_at: datetime
    finished_at: datetime | None
    usage: Usage
    usd: float
    device: str
    dtype: str
    attention: str
    micro_batch: int | None
    predicted_memory_bytes: int | None


@dataclass(frozen=True)
class CausedEnd:
    """How an attempt ended, and on which worker."""

    attempt: int
    worker: str | None
    finished_at: datetime
    message: str


@dataclass(frozen=True, kw_only=True)
class Held:
    """For how long an attempt has been on a worker, and the model of its device ("": not known)."""

    seconds: float
    device: str


def attempts_of_trial(session: Session, project_id: int, study_id: int, trial_number: int) -> list[AttemptRow]:
    """Every attempt of a trial in the order in which they started."""
    query = (
        select(Attempt, Slice.trial_number, Slice.until_examples, Slice.state, Worker.name, Worker.node)
        .join(Slice, _ATTEMPTS_OF_SLICES)
        .outerjoin(Worker, Worker.id == Attempt.worker_id)
        .where(Slice.project_id == project_id, Slice.study_id == study_id, Slice.trial_number == trial_number)
        .order_by(Attempt.started_at, Attempt.slice_id, Attempt.attempt)
    )
    return [_attempt(row) for row in session.execute(query)]


def attempts_with_causes(session: Session, slice_id: int, causes: Collection[str]) -> list[CausedEnd]:
    """The attempts at a slice that ended with one of these causes, in order, with the names of their workers."""
    query = (
        select(Attempt.attempt, Worker.name, Attempt.finished_at, Attempt.message)
        .outerjoin(Worker, Worker.id == Attempt.worker_id)
        .where(Attempt.slice_id == slice_id, Attempt.cause.in_(causes))
        .order_by(Attempt.attempt)
    )
    return [
        CausedEnd(attempt, worker, finished_at, message)
        for attempt, worker, finished_at, message in session.execute(query)
        if finished_at is not None
    ]


def held(session: Session, token: tuple[int, int]) -> Held:
    """For how long the attempt has been on its worker, queued or running, and what device that has."""
    seconds = func.extract("epoch", func.clock_timestamp() - Attempt.started_at)
    query = (
        select(seconds.label("seconds"), func.coalesce(Worker.device, "").label("device"))
        .outerjoin(Worker, Worker.id == Attempt.worker_id)
        .where(Attempt.slice_id == token[0], Attempt.attempt == token[1])
    )
    row = session.execute(query).one()
    return Held(seconds=float(row.seconds), device=row.device)


def memory_tried(
    session: Session, project_id: int, study_id: int, trial_number: int
) -> list[tuple[int | None, int | None]]:
    """(micro-batch, predicted bytes) of the attempts of a trial that ran out of memory, in order."""
    query = (
        select(Attempt.micro_batch, Attempt.predicted_memory_bytes)
        .join(Slice, _ATTEMPTS_OF_SLICES)
        .where(
            Slice.project_id == project_id,
            Slice.study_id == study_id,
            Slice.trial_number == trial_number,
            Attempt.outcome == str(Outcome.OOM),
        )
        .order_by(Attempt.started_at)
    )
    return [(row.micro_batch, row.predicted_memory_bytes) for row in session.execute(query)]


def progress_by_trial(
    session: Session, project_id: int, study_id: int, trial_numbers: Sequence[int]
) -> dict[int, dict[str, Any]]:
    """The last sign of life of those of the trials with a running slice: its rung and what the worker reported."""
    query = select(Slice.trial_number, Slice.until_examples, Slice.progress).where(
        Slice.project_id == project_id,
        Slice.study_id == study_id,
        Slice.trial_number.in_(trial_numbers),
        Slice.state == "running",
    )
    return {row.trial_number: {"until_examples": row.until_examples, **row.progress} for row in session.execute(query)}


def slice_states(session: Session, project_id: int, slice_ids: Sequence[int]) -> dict[int, str]:
    """State of each slice by its id."""
    query = select(Slice.id, Slice.state).where(Slice.project_id == project_id, Slice.id.in_(slice_ids))
    return {row.id: row.state for row in session.execute(query)}


def fold_losses(session: Session, project_id: int, study_id: int) -> dict[int, dict[int, tuple[float, ...]]]:
    """The mean evaluation loss of every fold, where it is known, by trial number and rung."""
    query = select(Slice.trial_number, Slice.until_examples, Slice.fold_losses).where(
        Slice.project_id == project_id, Slice.study_id == study_id, Slice.fold_losses.is_not(None)
    )
    found: dict[int, dict[int, tuple[float, ...]]] = {}
    for number, rung, losses in session.execute(query.order_by(Slice.id)):
        found.setdefault(number, {})[rung] = tuple(losses or ())
    return found


def snapshots_of_trial(session: Session, project_id: int, study_id: int, trial_number: int) -> list[dict[str, Any]]:
    """Every known snapshot of a trial, newest first."""
    query = select(Slice.snapshots).where(
        Slice.project_id == project_id, Slice.study_id == study_id, Slice.trial_number == trial_number
    )
    snapshots = [snapshot for listed in session.scalars(query) for snapshot in listed]
    return sorted(snapshots, key=lambda snapshot: -int(snapshot["examples_seen"]))


def seconds_per_example(session: Session, project_id: int, model_path: str) -> float | None:
    """How long an example took in earlier studies of this model, all work of the workers counted; None if unknown."""
    query = (
        select(total(SECONDS).label("seconds"), total(Attempt.examples).label("examples"))
        .join(Slice, _ATTEMPTS_OF_SLICES)
        .join(Study, and_(Study.id == Slice.study_id, Study.project_id == Slice.project_id))
        .where(
            Slice.project_id == project_id,
            Study.resolved["model"]["path"].astext == model_path,
            Attempt.outcome == "done",
        )
    )
    row = session.execute(query).one()
    return float(row.seconds) / float(row.examples) if row.examples else None


def _attempt(row: Row[Attempt, int, int, str, str, str]) -> AttemptRow:
    attempt: Attempt = row.Attempt
    return AttemptRow(
        slice_id=attempt.slice_id,
        attempt=attempt.attempt,
        trial_number=row.trial_number,
        until_examples=row.until_examples,
        slice_state=row.state,
        outcome=attempt.outcome,
        cause=attempt.cause,
        worker=row.name,
        node=row.node,
        message=attempt.message,
        started_at=attempt.started_at,
        finished_at=attempt.finished_at,
        usage=usage_of(attempt),
        usd=attempt.cost_usd,
        device=attempt.device,
        dtype=attempt.dtype,
        attention=attempt.attention,
        micro_batch=attempt.micro_batch,
        predicted_memory_bytes=attempt.predicted_memory_bytes,
    )
