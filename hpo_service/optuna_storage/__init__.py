"""Optuna studies in memory, flushed into Optuna's own tables inside the caller's transaction."""

from hpo_service.optuna_storage.ids import IdSource, SequenceIds
from hpo_service.optuna_storage.load import read_frozen_trials
from hpo_service.optuna_storage.storage import StaleStorage, StudyStorage

__all__ = ["IdSource", "SequenceIds", "StaleStorage", "StudyStorage", "read_frozen_trials"]
