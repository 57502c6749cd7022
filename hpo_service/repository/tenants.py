"""Projects: what belongs to one, and what it may use."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from hpo_service.tables import Study


def optuna_study_ids(session: Session, project_id: int) -> Sequence[int]:
    """Numbers in Optuna's tables of the project's studies, those that confirm others too."""
    query = select(Study.optuna_study_id).where(
        Study.project_id == project_id, Study.deleted_at.is_(None), Study.optuna_study_id.is_not(None)
    )
    return [number for number in session.scalars(query) if number is not None]
