"""What optuna-dashboard, which knows no projects, may show to whom."""

from sqlalchemy.orm import Session

from hpo_service.storage.queries.tenants import optuna_study_ids as _read

__all__ = ["optuna_study_ids"]


def optuna_study_ids(session: Session, project_id: int) -> frozenset[int]:
    """Numbers in Optuna's tables of the project's studies, those that confirm others too."""
    return frozenset(_read(session, project_id))
