"""The in-memory authority on studies and their trials, written into Optuna's tables inside the caller's transaction."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection

from hpo_service.storage.optuna import tables
from hpo_service.storage.optuna.codec import plain
from hpo_service.storage.optuna.ids import IdSource, SequenceIds
from hpo_service.storage.optuna.load import read_frozen_trials, read_study
from hpo_service.storage.optuna.memory import Memory
from hpo_service.storage.optuna.rows import PendingRows
from hpo_service.storage.optuna.transactions import Witness


class StaleStorage(RuntimeError):
    """Memory and tables may differ, because a transaction failed: throw the storage away and load it again."""


class StudyStorage(Memory):
    """Studies in memory, with every change recorded until `flush` writes it.

    One thread writes; others may read at any time. Reads never touch the database. A pickled or deep copy is for
    reading only.
    """

    def __init__(self, ids: IdSource) -> None:
        super().__init__()
        self._ids = ids
        self._pending = PendingRows()
        self._witness = Witness()
        self._stale: str | None = None

    @classmethod
    def load(cls, connection: Connection, study_ids: Iterable[int], ids: IdSource | None = None) -> Self:
        """Read these studies from Optuna's tables, two statements each. Raise KeyError if one does not exist.

        Without `ids`, new ids come from Optuna's sequences over the engine of `connection`.
        """
        storage = cls(SequenceIds(connection.engine) if ids is None else ids)
        for study_id in study_ids:
            facts = read_study(connection, study_id)
            storage._adopt_study(study_id, facts, read_frozen_trials(connection, study_id))
        return storage

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        return state | {"_ids": None, "_pending": PendingRows(), "_stale": "it is a copy"}

    def flush(self, connection: Connection) -> None:
        """Write what changed, one statement for each table concerned and one to look after. Does not commit.

        If the transaction fails, throw the storage away. Should a caller forget, its next flush raises StaleStorage.
        """
        with self._lock:
            pending, self._pending = self._pending, PendingRows()
        if not pending:
            return
        self._require_fresh()
        try:
            if objection := self._witness.enter(connection):
                self.discard(objection)
                self._require_fresh()
            pending.write(connection)
        except BaseException as error:
            self.discard(f"{type(error).__name__} while it was being written")
            raise

    @contextmanager
    def changes(self, connection: Connection) -> Iterator[Self]:
        """A block that flushes at its end; an error in it discards the storage."""
        try:
            yield self
            self.flush(connection)
        except BaseException as error:
            self.discard(f"{type(error).__name__} in a block of changes")
            raise

    def has_changes(self) -> bool:
        """Whether a flush has something to write."""
        return bool(self._pending)

    def discard(self, reason: str) -> None:
        """Refuse every further change; reads go on."""
        self._stale = self._stale or reason

    def _require_fresh(self) -> None:
        if self._stale is not None:
            raise StaleStorage(f"this StudyStorage was discarded ({self._stale}); load it again.")

    @contextmanager
    def _changing(self) -> Iterator[PendingRows]:
        with self._lock:
            self._require_fresh()
            yield self._pending

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Only the names of studies in memory are checked here; another duplicate fails when it is written."""
        with self._changing() as rows:
            study_id = self._ids.study_id()
            name = self._add_study(study_id, directions, study_name)
            rows.study(study_id, name, directions)
            return study_id

    def delete_study(self, study_id: int) -> None:
        """Delete the study with all its trials."""
        with self._changing() as rows:
            trial_ids = self._trial_ids_of(study_id)
            super().delete_study(study_id)
            rows.delete_study(study_id, trial_ids)

    def set_study_user_attr(self, study_id: int, key: str, value: object) -> None:
        """The value is kept as JSON returns it."""
        with self._changing() as rows:
            super().set_study_user_attr(study_id, key, plain(value))
            rows.attribute(tables.study_user_attributes, study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:  # noqa: ANN401
        """The value is kept as JSON returns it."""
        with self._changing() as rows:
            super().set_study_system_attr(study_id, key, plain(value))
            rows.attribute(tables.study_system_attributes, study_id, key, value)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """A new RUNNING trial, or a copy of the template with its own id and number."""
        with self._changing() as rows:
            self._check_study_id(study_id)
            if template_trial is not None:
                self._require_compatible(study_id, template_trial)
            trial = self._add_trial(self._ids.trial_id(), study_id, template_trial)
            if template_trial is None:
                self._stamp(trial, self._witness.now())
            rows.trial(study_id, trial)
            rows.trial_contents(trial)
            return trial._trial_id

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Set or replace a parameter of an unfinished trial."""
        with self._changing() as rows:
            super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
            rows.param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """False, and nothing changes, if a trial that is not WAITING was to become RUNNING."""
        with self._changing() as rows:
            if not super().set_trial_state_values(trial_id, state, values):
                return False
            trial = self.get_trial(trial_id)
            self._stamp(trial, self._witness.now())
            rows.trial(self._study_id_of(trial_id), trial)
            return True

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Set or replace the value at a step of an unfinished trial."""
        with self._changing() as rows:
            super().set_trial_intermediate_value(trial_id, step, intermediate_value)
            rows.intermediate(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: object) -> None:
        """The value is kept as JSON returns it."""
        with self._changing() as rows:
            super().set_trial_user_attr(trial_id, key, plain(value))
            rows.attribute(tables.trial_user_attributes, trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:  # noqa: ANN401
        """The value is kept as JSON returns it."""
        with self._changing() as rows:
            super().set_trial_system_attr(trial_id, key, plain(value))
            rows.attribute(tables.trial_system_attributes, trial_id, key, value)
