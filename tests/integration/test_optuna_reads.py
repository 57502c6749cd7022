"""Reads of Optuna's tables for the API."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy import Engine, event

from hpo_service.storage.optuna import SequenceIds, StudyStorage
from hpo_service.storage.queries.optuna_reads import count_by_state, read_trials


@pytest.fixture
def study_id(engine: Engine) -> int:
    """Trials 0 to 4: COMPLETE, PRUNED, FAIL, RUNNING, RUNNING."""
    storage = StudyStorage(SequenceIds(engine))
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], "study")
    for number in range(5):
        trial_id = storage.create_new_trial(study_id)
        storage.set_trial_param(trial_id, "targets", number % 2, CategoricalDistribution(("attention", "all")))
        storage.set_trial_param(trial_id, "rank", 4 + number, IntDistribution(1, 64))
        storage.set_trial_intermediate_value(trial_id, 200, math.nan)
        storage.set_trial_intermediate_value(trial_id, 100, number / 3)
        storage.set_trial_user_attr(trial_id, "hpo_state", "paused")
        storage.set_trial_system_attr(trial_id, "fixed_params", {"rank": 4})
        ends = {0: (TrialState.COMPLETE, [0.25]), 1: (TrialState.PRUNED, [0.5]), 2: (TrialState.FAIL, None)}
        if number in ends:
            storage.set_trial_state_values(trial_id, *ends[number])
    other = storage.create_new_study([StudyDirection.MINIMIZE], "other")
    storage.create_new_trial(other)
    with engine.begin() as connection:
        storage.flush(connection)
    return study_id


def test_a_row_has_real_values_and_aware_times(engine: Engine, study_id: int) -> None:
    with engine.begin() as connection:
        (row,) = read_trials(connection, study_id, number=0)
        (running,) = read_trials(connection, study_id, number=3)
    assert (row.number, row.state, row.value) == (0, TrialState.COMPLETE, 0.25)
    assert row.params == {"targets": "attention", "rank": 4}
    assert isinstance(row.params["rank"], int)
    assert list(row.intermediate_values) == [100, 200]
    assert math.isnan(row.intermediate_values[200])
    assert row.user_attrs == {"hpo_state": "paused"}
    assert row.system_attrs == {"fixed_params": {"rank": 4}}
    assert row.started_at is not None
    assert row.finished_at is not None
    assert row.finished_at.utcoffset() == timedelta(0)
    assert timedelta(0) <= row.finished_at - row.started_at < timedelta(minutes=1)
    assert abs(datetime.now(UTC) - row.finished_at) < timedelta(minutes=1)
    assert running.finished_at is None
    assert running.value is None


def test_pages_follow_the_number(engine: Engine, study_id: int) -> None:
    with engine.begin() as connection:
        assert [row.number for row in read_trials(connection, study_id)] == [0, 1, 2, 3, 4]
        assert [row.number for row in read_trials(connection, study_id, limit=2)] == [0, 1]
        assert [row.number for row in read_trials(connection, study_id, after_number=1, limit=2)] == [2, 3]
        assert read_trials(connection, study_id, after_number=4) == []
        assert read_trials(connection, study_id, number=9) == []
        assert read_trials(connection, 10**6) == []


def test_states_are_counted(engine: Engine, study_id: int) -> None:
    with engine.begin() as connection:
        counts = count_by_state(connection, study_id)
        assert count_by_state(connection, 10**6) == dict.fromkeys(TrialState, 0)
    assert counts == {
        TrialState.COMPLETE: 1,
        TrialState.PRUNED: 1,
        TrialState.FAIL: 1,
        TrialState.RUNNING: 2,
        TrialState.WAITING: 0,
    }


def test_each_read_is_one_statement(engine: Engine, study_id: int) -> None:
    seen: list[str] = []
    with engine.begin() as connection:
        event.listen(engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2]))
        read_trials(connection, study_id)
        assert len(seen) == 1
        count_by_state(connection, study_id)
        assert len(seen) == 2
