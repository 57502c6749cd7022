"""The PostgreSQL side: URLs, engines and sessions, and the schemas that a version needs."""

from hpo_service.storage.database.engine import (
    describe,
    make_engine,
    normalize_url,
    optuna_url,
    read_only,
    session_factory,
)
from hpo_service.storage.database.preparation import prepare

__all__ = ["describe", "make_engine", "normalize_url", "optuna_url", "prepare", "read_only", "session_factory"]
