"""What the console shows of all studies of a project together: open slices, recent events, the course of the best."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, case, func, select, text
from sqlalchemy.orm import Session

from hpo_service.core.messages import EventKind
from hpo_service.storage.promotion_tables import Promotion
from hpo_service.storage.tables import Attempt, Event, Intent, Slice, Study, Worker

_OPEN = ("running", "waiting")
# In the order in which the losses were told; failed trials and losses that are not finite are left out.
_LOWEST = text(
    """
    WITH told AS (
      SELECT i.intermediate_value AS loss,
             row_number() OVER (ORDER BY i.trial_intermediate_value_id) AS place,
             min(i.intermediate_value) OVER (ORDER BY i.trial_intermediate_value_id
                                             ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
        FROM optuna.trials t
        JOIN optuna.trial_intermediate_values i ON i.trial_id = t.trial_id
       WHERE t.study_id = :study AND t.state <> 'FAIL' AND i.intermediate_value_type = 'FINITE')
    SELECT place, loss, (SELECT count(*) FROM told) AS told
      FROM told WHERE before IS NULL OR loss < before ORDER BY place
    """
)


@dataclass(frozen=True, kw_only=True)
class OpenSlice:
    """A slice that runs or waits. The worker is that of the current attempt; `heard_at` is its last sign of life."""

    study_id: int
    study: str
    trial_number: int
    slice_id: int
    until_examples: int
    state: str
    attempt: int
    progress: dict[str, Any]
    heard_at: datetime | None
    worker: str | None
    node: str | None
    device: str | None
    started_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class RecentEvent:
    """An event with the name of its study; None: of the service."""

    id: int
    kind: str
    study: str | None
    trial_number: int | None
    payload: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True)
class Lowest:
    """The lowest loss so far each time that it fell: (how many losses had been told by then, the loss).

    `told` is how many losses there are in all.
    """

    steps: tuple[tuple[int, float], ...] = ()
    told: int = 0


def open_slices(session: Session, project_id: int, *, study_id: int | None, limit: int) -> list[OpenSlice]:
    """Slices of the project, or of one study and its confirmation, that run or wait; the running ones first."""
    query = (
        select(Slice, Study.name.label("study"), Worker.name, Worker.node, Worker.device, Attempt.started_at)
        .join(Study, and_(Study.id == Slice.study_id, Study.project_id == Slice.project_id))
        .outerjoin(
            Attempt,
            and_(
                Attempt.slice_id == Slice.id,
                Attempt.attempt == Slice.attempt,
                Attempt.project_id == Slice.project_id,
                Slice.state == "running",
            ),
        )
        .outerjoin(Worker, Worker.id == Attempt.worker_id)
        .where(Slice.project_id == project_id, Slice.state.in_(_OPEN))
        .order_by(case((Slice.state == "running", 0), else_=1), Worker.name, Slice.id)
        .limit(limit)
    )
    if study_id is not None:
        family = select(Study.id).where(
            Study.project_id == project_id, (Study.id == study_id) | (Study.parent_study_id == study_id)
        )
        query = query.where(Slice.study_id.in_(family))
    return [
        OpenSlice(
            study_id=row.Slice.study_id,
            study=row.study,
            trial_number=row.Slice.trial_number,
            slice_id=row.Slice.id,
            until_examples=row.Slice.until_examples,
            state=row.Slice.state,
            attempt=row.Slice.attempt,
            progress=row.Slice.progress if row.Slice.state == "running" else {},
            heard_at=row.Slice.heard_at,
            worker=row.name,
            node=row.node,
            device=row.device,
            started_at=row.started_at,
            created_at=row.Slice.created_at,
        )
        for row in session.execute(query)
    ]


def count_open_slices(session: Session, project_id: int) -> dict[str, int]:
    """How many slices of the project run and wait, by state."""
    query = select(Slice.state, func.count().label("slices")).where(
        Slice.project_id == project_id, Slice.state.in_(_OPEN)
    )
    return {row.state: row.slices for row in session.execute(query.group_by(Slice.state))}


def recent_events(session: Session, project_id: int, *, study_id: int | None, limit: int) -> list[RecentEvent]:
    """The newest first, of the project or of one study; without checkpoints inside slices and deleted studies."""
    query = (
        select(Event, Study.name.label("study"))
        .outerjoin(
            Study,
            and_(Study.id == Event.study_id, Study.project_id == Event.project_id, Study.deleted_at.is_(None)),
        )
        .where(Event.project_id == project_id, Event.kind != str(EventKind.SLICE_PROGRESS))
        .where(Event.study_id.is_(None) | Study.id.is_not(None))
        .order_by(Event.id.desc())
        .limit(limit)
    )
    if study_id is not None:
        query = query.where(Event.study_id == study_id)
    return [
        RecentEvent(
            id=row.Event.id,
            kind=row.Event.kind,
            study=row.study,
            trial_number=row.Event.trial_number,
            payload=row.Event.payload,
            created_at=row.Event.created_at,
        )
        for row in session.execute(query)
    ]


def lowest_losses(connection: Connection, optuna_study_id: int) -> Lowest:
    """How the lowest loss at any rung fell, over all losses in the order in which they were told."""
    rows = connection.execute(_LOWEST, {"study": optuna_study_id}).all()
    return Lowest(steps=tuple((row.place, row.loss) for row in rows), told=rows[0].told if rows else 0)


def change_mark(session: Session, project_id: int) -> tuple[object, ...]:
    """Differs from an earlier one if anything that people see of the project has changed since."""
    newest: Collection[Any] = (
        select(Event.id).where(Event.project_id == project_id).order_by(Event.id.desc()).limit(1),
        select(Intent.id).where(Intent.project_id == project_id).order_by(Intent.id.desc()).limit(1),
        select(Promotion.id).where(Promotion.project_id == project_id).order_by(Promotion.id.desc()).limit(1),
        select(func.max(Slice.heard_at)).where(Slice.project_id == project_id, Slice.state.in_(_OPEN)),
        # These make no event.
        select(func.max(Study.deleted_at)).where(Study.project_id == project_id),
        select(func.count()).where(Intent.project_id == project_id, Intent.done_at.is_(None)),
        select(func.max(Worker.id)).where(Worker.project_id == project_id),
    )
    return tuple(session.execute(select(*(one.scalar_subquery() for one in newest))).one())
