"""Optuna's own storage tests against ours.

They run twice: purely in memory, and on PostgreSQL where every write is flushed and committed, after which all studies
are loaded again, so that each read of a test answers what the tables hold. All cases apply; none is left out.

What they cannot show, and what differs from RDBStorage on purpose: `create_new_study` raises DuplicatedStudyError only
for studies in the same StudyStorage (the unique index refuses others when the study is written), and a pickled copy is
for reading only.
"""

import itertools
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.testing.pytest_storages import StorageTestCase
from sqlalchemy import Engine, select

from hpo_service.storage.optuna import SequenceIds, StaleStorage, StudyStorage
from hpo_service.storage.optuna.tables import studies

WRITES = (
    "create_new_study",
    "delete_study",
    "set_study_user_attr",
    "set_study_system_attr",
    "create_new_trial",
    "set_trial_param",
    "set_trial_state_values",
    "set_trial_intermediate_value",
    "set_trial_user_attr",
    "set_trial_system_attr",
)


class CountingIds:
    """Ids without a database."""

    def __init__(self) -> None:
        self._next = itertools.count(1)

    def study_id(self) -> int:
        return next(self._next)

    def trial_id(self) -> int:
        return next(self._next)


class TestInMemory(StorageTestCase):
    @pytest.fixture
    def storage(self) -> BaseStorage:
        return StudyStorage(CountingIds())


class Reloading:
    """Flushes, commits and loads again after every write; everything else is answered by what was loaded."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.ids = SequenceIds(engine, block=2)
        self.reload()

    def reload(self) -> None:
        with self.engine.begin() as connection:
            study_ids = connection.scalars(select(studies.c.study_id).order_by(studies.c.study_id)).all()
            self.loaded = StudyStorage.load(connection, study_ids, self.ids)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(self.write, name) if name in WRITES else getattr(self.loaded, name)

    def write(self, name: str, *args: object, **kwargs: object) -> object:
        try:
            with self.engine.begin() as connection, self.loaded.changes(connection):
                return getattr(self.loaded, name)(*args, **kwargs)
        finally:
            self.reload()

    def __reduce__(self) -> tuple[Callable[[StudyStorage], StudyStorage], tuple[StudyStorage]]:
        return _unchanged, (self.loaded,)


def _unchanged(storage: StudyStorage) -> StudyStorage:
    return storage


class TestReloadedFromPostgres(StorageTestCase):
    @pytest.fixture
    def storage(self, engine: Engine) -> Reloading:
        return Reloading(engine)


def test_a_copy_is_for_reading_only() -> None:
    storage = StudyStorage(CountingIds())
    study_id = storage.create_new_study([StudyDirection.MINIMIZE])
    copy: StudyStorage = pickle.loads(pickle.dumps(storage))
    assert copy.get_all_trials(study_id) == []
    with pytest.raises(StaleStorage, match="it is a copy"):
        copy.create_new_trial(study_id)
    storage.create_new_trial(study_id)
