"""Slices of a study, page by page, with the worker of their current attempt."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from hpo_service.storage.queries.usage import SECONDS, total
from hpo_service.storage.tables import Attempt, Slice, Worker

_FREE = {"seconds": 0.0, "lost_seconds": 0.0, "usd": 0.0}


@dataclass(frozen=True, kw_only=True)
class SliceRow:
    """A slice. `worker` is the last one that it was given to.

    Its attempts that have ended held their workers for `seconds`, lost ones for about `lost_seconds` of them.
    """

    slice: Slice
    worker: str | None
    node: str | None
    seconds: float
    lost_seconds: float
    usd: float


def slices_after(
    session: Session, project_id: int, study_id: int, *, after_id: int, limit: int, state: str | None
) -> list[SliceRow]:
    """Slices of the study with an id above `after_id`, in order; only those in `state` if it is given."""
    query = (
        select(Slice, Worker.name, Worker.node)
        .outerjoin(
            Attempt,
            and_(
                Attempt.slice_id == Slice.id,
                Attempt.attempt == Slice.attempt,
                Attempt.project_id == Slice.project_id,
            ),
        )
        .outerjoin(Worker, Worker.id == Attempt.worker_id)
        .where(Slice.project_id == project_id, Slice.study_id == study_id, Slice.id > after_id)
        .order_by(Slice.id)
        .limit(limit)
    )
    if state is not None:
        query = query.where(Slice.state == state)
    found = session.execute(query).all()
    bills = _bills(session, project_id, [row.Slice.id for row in found])
    return [
        SliceRow(slice=row.Slice, worker=row.name, node=row.node, **bills.get(row.Slice.id, _FREE)) for row in found
    ]


def _bills(session: Session, project_id: int, slice_ids: Collection[int]) -> dict[int, dict[str, float]]:
    query = (
        select(
            Attempt.slice_id,
            total(SECONDS).label("seconds"),
            total(Attempt.lost_seconds).label("lost_seconds"),
            total(Attempt.cost_usd).label("usd"),
        )
        .where(Attempt.project_id == project_id, Attempt.slice_id.in_(slice_ids))
        .group_by(Attempt.slice_id)
    )
    return {
        row.slice_id: {"seconds": row.seconds, "lost_seconds": row.lost_seconds, "usd": row.usd}
        for row in session.execute(query)
    }
