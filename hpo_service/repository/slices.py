"""Slices of a study, page by page, with the worker of their current attempt."""

from dataclasses import dataclass

from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from hpo_service.tables import Attempt, Slice, Worker


@dataclass(frozen=True, kw_only=True)
class SliceRow:
    """A slice. `worker` is the last one that it was given to."""

    slice: Slice
    worker: str | None
    node: str | None


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
    return [SliceRow(slice=row, worker=worker, node=node) for row, worker, node in session.execute(query)]
