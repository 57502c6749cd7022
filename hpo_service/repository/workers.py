"""Workers as everybody may know them."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hpo_service.tables import Worker


def count_by_state(session: Session, project_id: int) -> dict[str, int]:
    """How many workers are starting and ready."""
    query = (
        select(Worker.state, func.count().label("workers"))
        .where(Worker.project_id == project_id, Worker.state != "gone")
        .group_by(Worker.state)
    )
    return {row.state: row.workers for row in session.execute(query)}
