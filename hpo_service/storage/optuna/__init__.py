"""Optuna studies in memory, flushed into Optuna's own tables inside the caller's transaction."""

from hpo_service.storage.optuna.ids import IdSource, SequenceIds
from hpo_service.storage.optuna.load import read_frozen_trials
from hpo_service.storage.optuna.storage import StaleStorage, StudyStorage

__all__ = ["IdSource", "SequenceIds", "StaleStorage", "StudyStorage", "read_frozen_trials"]
