"""What StudyStorage writes is what Optuna's RDBStorage reads, and what it loads again."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import Engine, event, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from hpo_service.storage.database import optuna_url
from hpo_service.storage.optuna import SequenceIds, StaleStorage, StudyStorage, tables

RATE = FloatDistribution(1e-6, 1e-2, log=True)
RANK = IntDistribution(4, 64, step=4)
TARGETS = CategoricalDistribution(("all", None, 3, True))


@pytest.fixture
def storage(engine: Engine) -> StudyStorage:
    return StudyStorage(SequenceIds(engine))


@pytest.fixture
def rdb(database_url: str) -> Iterator[RDBStorage]:
    storage = RDBStorage(optuna_url(database_url))
    yield storage
    storage.remove_session()
    storage.engine.dispose()


def reloaded(engine: Engine, *study_ids: int) -> StudyStorage:
    with engine.begin() as connection:
        return StudyStorage.load(connection, study_ids)


def written(engine: Engine, storage: StudyStorage) -> StudyStorage:
    with engine.begin() as connection:
        storage.flush(connection)
    return storage


@contextmanager
def statements(engine: Engine) -> Iterator[list[str]]:
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield seen
    event.remove(engine, "before_cursor_execute", note)


def fill(storage: StudyStorage, name: str = "everything") -> int:
    """A study with a trial of every kind."""
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], name)
    storage.set_study_user_attr(study_id, "note", "x" * 5000)
    storage.set_study_system_attr(study_id, "study:metric_names", ["loss"])
    waiting = create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": {"rate": 1e-4, "rank": 8}})
    storage.create_new_trial(study_id, waiting)
    ends = [(TrialState.COMPLETE, [0.5]), (TrialState.PRUNED, [math.inf]), (TrialState.FAIL, None)]
    for state, values in [*ends, (TrialState.RUNNING, None)]:
        trial_id = storage.create_new_trial(study_id)
        storage.set_trial_param(trial_id, "targets", 1, TARGETS)
        storage.set_trial_param(trial_id, "rate", 1.2345678901234567e-5, RATE)
        storage.set_trial_param(trial_id, "rank", 12, RANK)
        for step, value in [(300, 0.1 + 0.2), (100, math.inf), (200, -math.inf), (400, 5e-324)]:
            storage.set_trial_intermediate_value(trial_id, step, value)
        storage.set_trial_user_attr(trial_id, "parameters", {"list": [1, (2, 3)], "none": None, "é\u0000": 1e308})
        storage.set_trial_user_attr(trial_id, "long", "y" * 5000)
        storage.set_trial_system_attr(trial_id, "b", -math.inf)
        storage.set_trial_user_attr(trial_id, "parameters", {"list": [1, (2, 3)], "again": True})
        if state.is_finished():
            storage.set_trial_state_values(trial_id, state, values)
    return study_id


def fields(trial: FrozenTrial) -> dict[str, object]:
    """Everything of a trial, with the order of its dictionaries."""
    return {name: list(value.items()) if isinstance(value, dict) else value for name, value in vars(trial).items()}


def assert_identical(left: list[FrozenTrial], right: list[FrozenTrial]) -> None:
    assert [fields(trial) for trial in left] == [fields(trial) for trial in right]


def test_optuna_reads_what_we_hold(engine: Engine, storage: StudyStorage, rdb: RDBStorage) -> None:
    study_id = fill(storage)
    ours = written(engine, storage).get_all_trials(study_id)
    study = optuna.load_study(study_name="everything", storage=rdb)

    assert study._study_id == study_id
    assert_identical(study.get_trials(), ours)
    assert_identical(reloaded(engine, study_id).get_all_trials(study_id), ours)
    assert study.best_trial == storage.get_best_trial(study_id)
    assert study.user_attrs == storage.get_study_user_attrs(study_id)
    assert rdb.get_study_system_attrs(study_id) == storage.get_study_system_attrs(study_id)
    assert study.directions == storage.get_study_directions(study_id)


def test_we_read_what_optuna_wrote(engine: Engine, rdb: RDBStorage) -> None:
    study = optuna.create_study(study_name="theirs", storage=rdb, directions=["maximize", "minimize"])
    study.enqueue_trial({"rate": 1e-3})
    for values in ([0.1, math.inf], [-math.inf, 2.0]):
        trial = study.ask({"rate": RATE, "rank": RANK, "targets": TARGETS})
        study.tell(trial, values)
    study.tell(study.ask(), state=TrialState.FAIL)
    study.add_trial(create_trial(state=TrialState.PRUNED, intermediate_values={1: math.nan}))

    ours = reloaded(engine, study._study_id)
    theirs = study.get_trials()
    assert repr(theirs) == repr(ours.get_all_trials(study._study_id))  # NaN differs from itself
    assert ours.get_study_directions(study._study_id) == study.directions
    assert ours.get_study_name_from_id(study._study_id) == "theirs"


def test_changes_after_a_reload_continue_the_study(engine: Engine, storage: StudyStorage, rdb: RDBStorage) -> None:
    study_id = fill(storage)
    written(engine, storage)
    again = reloaded(engine, study_id)
    waiting = again.get_trial_id_from_study_id_trial_number(study_id, 0)
    with engine.begin() as connection, again.changes(connection):
        assert again.set_trial_state_values(waiting, TrialState.RUNNING)
        assert not again.set_trial_state_values(waiting, TrialState.RUNNING)
        again.set_trial_intermediate_value(waiting, 7, math.pi)
        again.set_trial_intermediate_value(waiting, 7, math.e)
        again.set_trial_state_values(waiting, TrialState.COMPLETE, [-math.inf])
        new = again.create_new_trial(study_id)
    assert again.get_trial_number_from_id(new) == 5
    assert again.get_best_trial(study_id).number == 0
    assert_identical(rdb.get_all_trials(study_id), again.get_all_trials(study_id))


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata", "UTC"])
def test_times_are_naive_utc_in_the_tables_whatever_the_machines_zone(
    engine: Engine, storage: StudyStorage, rdb: RDBStorage, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    try:
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        study_id = storage.create_new_study([StudyDirection.MINIMIZE])
        twice = datetime(2026, 11, 1, 6, 30, 0, 123456, UTC)  # 01:30 in New York, for the second time
        begun = create_trial(state=TrialState.RUNNING)
        begun.datetime_start = twice
        storage.create_new_trial(study_id, begun)
        storage.create_new_trial(study_id)
        assert_identical(written(engine, storage).get_all_trials(study_id), rdb.get_all_trials(study_id))
        again = reloaded(engine, study_id)
        again.set_trial_state_values(again.get_all_trials(study_id)[0]._trial_id, TrialState.FAIL)
        written(engine, again)
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        assert_identical(reloaded(engine, study_id).get_all_trials(study_id), rdb.get_all_trials(study_id))
        assert reloaded(engine, study_id).get_all_trials(study_id)[0].datetime_start == datetime(
            2026, 11, 1, 15, 30, 0, 123456
        )
    finally:
        monkeypatch.undo()
        time.tzset()
    with engine.begin() as connection:
        started = connection.scalars(select(tables.trials.c.datetime_start).order_by(tables.trials.c.number)).all()
        now = connection.scalar(text("SELECT clock_timestamp() AT TIME ZONE 'UTC'"))
    assert started[0] == twice.replace(tzinfo=None)
    assert abs((now - started[1]).total_seconds()) < 60


def test_deleting_a_study_leaves_nothing(engine: Engine, storage: StudyStorage) -> None:
    kept, gone = fill(storage, "kept"), fill(storage, "gone")
    unwritten = fill(storage, "never written")
    storage.delete_study(unwritten)
    written(engine, storage)
    before = storage.get_all_trials(kept)
    storage.set_study_user_attr(gone, "late", 1)
    storage.create_new_trial(gone)
    storage.delete_study(gone)
    again = fill(storage, "gone")
    written(engine, storage)

    loaded = reloaded(engine, kept, again)
    assert_identical(loaded.get_all_trials(kept), before)
    assert {study.study_name for study in loaded.get_all_studies()} == {"kept", "gone"}
    with pytest.raises(KeyError):
        reloaded(engine, gone)
    with engine.begin() as connection:
        owners = connection.scalars(select(tables.trial_params.c.trial_id).distinct()).all()
        assert set(connection.scalars(select(tables.studies.c.study_id))) == {kept, again}
    assert set(owners) <= {trial._trial_id for study in (kept, again) for trial in loaded.get_all_trials(study)}


def test_a_flush_is_one_statement_a_table(engine: Engine, storage: StudyStorage) -> None:
    study_id = written(engine, storage).create_new_study([StudyDirection.MINIMIZE])
    written(engine, storage)
    trial_id = storage.create_new_trial(study_id)
    for step in range(3):
        storage.set_trial_param(trial_id, f"p{step}", 1e-3, RATE)
        storage.set_trial_user_attr(trial_id, f"a{step}", step)
    with statements(engine) as seen:
        written(engine, storage)
    assert [statement.split("(")[0].strip() for statement in seen[1:]] == [
        "INSERT INTO optuna.trials",
        "INSERT INTO optuna.trial_params",
        "INSERT INTO optuna.trial_user_attributes",
    ]
    with statements(engine) as seen:
        written(engine, storage)
    assert seen == []


def test_nothing_is_committed_by_us(engine: Engine, storage: StudyStorage) -> None:
    with engine.connect() as connection:
        storage.create_new_study([StudyDirection.MINIMIZE], "a")
        storage.flush(connection)
        connection.rollback()
        assert connection.scalars(select(tables.studies.c.study_name)).all() == []


def test_a_forgotten_rollback_is_noticed(engine: Engine, storage: StudyStorage) -> None:
    study_id = fill(storage)
    written(engine, storage)
    with engine.connect() as connection:
        storage.create_new_trial(study_id)
        storage.flush(connection)
        connection.rollback()
    storage.create_new_trial(study_id)
    with pytest.raises(StaleStorage, match="is aborted"):
        written(engine, storage)
    with pytest.raises(StaleStorage):
        storage.create_new_trial(study_id)
    assert len(reloaded(engine, study_id).get_all_trials(study_id)) == 5


def test_several_flushes_may_share_a_transaction(engine: Engine, storage: StudyStorage) -> None:
    study_id = fill(storage)
    with engine.begin() as connection:
        storage.flush(connection)
        storage.create_new_trial(study_id)
        storage.flush(connection)
    storage.create_new_trial(study_id)
    written(engine, storage)
    assert len(reloaded(engine, study_id).get_all_trials(study_id)) == 7


def test_an_unfinished_transaction_is_no_base(engine: Engine, storage: StudyStorage) -> None:
    study_id = fill(storage)
    with engine.begin() as open_transaction:
        storage.flush(open_transaction)
        storage.create_new_trial(study_id)
        with pytest.raises(StaleStorage, match="in progress"):
            written(engine, storage)


def test_errors_discard_the_storage(engine: Engine, storage: StudyStorage) -> None:
    fill(storage, "taken")
    written(engine, storage)
    other = StudyStorage(SequenceIds(engine))
    other.create_new_study([StudyDirection.MINIMIZE], "taken")
    with pytest.raises(IntegrityError):
        written(engine, other)
    with pytest.raises(StaleStorage, match="IntegrityError"):
        other.create_new_study([StudyDirection.MINIMIZE], "free")

    with pytest.raises(KeyError), engine.begin() as connection, storage.changes(connection):
        storage.create_new_trial(-1)
    with pytest.raises(StaleStorage, match="KeyError"):
        storage.create_new_study([StudyDirection.MINIMIZE])


def test_what_json_cannot_say_is_refused_before_it_is_kept(engine: Engine, storage: StudyStorage) -> None:
    study_id = fill(storage)
    with pytest.raises(TypeError):
        storage.set_study_user_attr(study_id, "bad", object())
    assert "bad" not in storage.get_study_user_attrs(study_id)
    written(engine, storage)


def test_kept_attributes_do_not_change_with_the_callers_object(storage: StudyStorage) -> None:
    study_id = storage.create_new_study([StudyDirection.MINIMIZE])
    points = [1]
    storage.set_study_user_attr(study_id, "points", points)
    points.append(2)
    assert storage.get_study_user_attrs(study_id) == {"points": [1]}


def test_ids_of_two_storages_never_meet(engine: Engine, storage: StudyStorage) -> None:
    other = StudyStorage(SequenceIds(engine, block=3))
    studies = [owner.create_new_study([StudyDirection.MINIMIZE]) for owner in (storage, other)]
    trial_ids = [
        owner.create_new_trial(study_id)
        for _ in range(20)
        for owner, study_id in zip((storage, other), studies, strict=True)
    ]
    assert len({*studies}) == 2
    assert len({*trial_ids}) == 40
    written(engine, storage)
    written(engine, other)
    assert trial_ids[::2] == [trial._trial_id for trial in reloaded(engine, studies[0]).get_all_trials(studies[0])]


def test_the_sequences_are_those_of_the_tables(engine: Engine) -> None:
    with engine.begin() as connection:
        for table, column, sequence in (
            ("studies", "study_id", tables.study_ids),
            ("trials", "trial_id", tables.trial_ids),
        ):
            found = connection.scalar(text(f"SELECT pg_get_serial_sequence('optuna.{table}', '{column}')"))
            assert found == f"optuna.{sequence.name}"


def test_a_template_must_fit_the_studys_distributions(storage: StudyStorage) -> None:
    study_id = fill(storage)
    clash = create_trial(
        state=TrialState.RUNNING, params={"rank": 0.5}, distributions={"rank": FloatDistribution(0, 1)}
    )
    with pytest.raises(ValueError, match="different distribution kind"):
        storage.create_new_trial(study_id, clash)
    assert len(storage.get_all_trials(study_id)) == 5


def test_a_lost_connection_discards_the_storage(engine: Engine, storage: StudyStorage) -> None:
    fill(storage)
    with engine.connect() as connection, engine.begin() as other:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
        other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        with pytest.raises(DBAPIError):
            storage.flush(connection)
    with pytest.raises(StaleStorage):
        storage.create_new_study([StudyDirection.MINIMIZE])
