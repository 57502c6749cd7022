"""How many workers there are, for whoever checks the service."""

from sqlalchemy.orm import Session

from hpo_service.repository.workers import count_by_state
from hpo_service.tables import DEFAULT_PROJECT_ID


def worker_counts(session: Session) -> dict[str, int]:
    """Workers that are starting and ready, by state."""
    return count_by_state(session, DEFAULT_PROJECT_ID)
