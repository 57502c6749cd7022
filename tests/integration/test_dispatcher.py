"""The dispatcher on a real PostgreSQL with the fake executor."""

import math
import re
from functools import partial
from threading import Event
from typing import Any, get_args

import pytest
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.errors import LeaseLost
from hpo_service.core.messages import IntentKind
from hpo_service.executors.base import SliceEnded, SliceProgress
from hpo_service.executors.fake import FakeExecutor
from hpo_service.search.leader import ahead_of
from hpo_service.spec.study import StrategyName
from hpo_service.storage.tables import Attempt, Intent, Slice, Study
from tests.dispatching import (
    ask,
    events_of,
    expire_lease,
    loss_of,
    make,
    optuna_trials,
    post_study,
    state_of,
    turn_until,
)
from trainer.spec import Outcome, Progress, SliceResult, SnapshotRef

Sessions = sessionmaker[Session]
KILL_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE pid <> pg_backend_pid() AND datname = current_database()
"""


def run_to_end(sessions: Sessions, study_id: int, executor: FakeExecutor | None = None) -> FakeExecutor:
    dispatcher, fake = make(sessions, executor)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) in ("completed", "failed", "cancelled"))
    return fake


def submitted(fake: FakeExecutor, count: int) -> bool:
    return len(fake.submitted) >= count


def facts(trial: FrozenTrial) -> tuple[Any, ...]:
    """What must be equal however often a study was interrupted."""
    return (trial.number, trial.state, trial.params, trial.value, trial.intermediate_values)


def test_a_study_runs_to_its_end_and_every_trial_is_finished(sessions: Sessions, database_url: str) -> None:
    study_id = post_study(sessions)
    run_to_end(sessions, study_id)
    trials = optuna_trials(database_url)
    assert state_of(sessions, study_id) == "completed"
    assert len(trials) == 9
    assert all(trial.state.is_finished() for trial in trials)
    assert {trial.state for trial in trials[1:]} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_the_baseline_is_trial_0_and_is_trained_to_its_end(sessions: Sessions, database_url: str) -> None:
    run_to_end(sessions, post_study(sessions))
    baseline = optuna_trials(database_url)[0]
    assert baseline.state is TrialState.COMPLETE
    assert baseline.user_attrs["baseline"] is True
    assert baseline.params["lora_r"] == 8
    assert baseline.params["learning_rate"] == 1e-4


def test_pruning_saves_examples(sessions: Sessions, database_url: str) -> None:
    study_id = post_study(sessions)
    run_to_end(sessions, study_id)
    with sessions() as session:
        spent = session.execute(select(func.sum(Attempt.examples))).scalar_one()
    assert spent < 0.7 * 9 * 1000


def test_two_studies_run_the_older_first(sessions: Sessions) -> None:
    first, second = post_study(sessions), post_study(sessions, metadata__name="t")
    dispatcher, _ = make(sessions)
    turn_until(dispatcher, lambda: state_of(sessions, first) == "completed")
    assert state_of(sessions, second) in ("queued", "running")
    turn_until(dispatcher, lambda: state_of(sessions, second) == "completed")


def test_the_same_seed_gives_the_same_study(sessions: Sessions, database_url: str) -> None:
    run_to_end(sessions, post_study(sessions))
    run_to_end(sessions, post_study(sessions, metadata__name="t"))
    first, second = optuna_trials(database_url), optuna_trials(database_url, "t")
    assert [facts(trial) for trial in first] == [facts(trial) for trial in second]


@pytest.mark.parametrize("killed_after_turns", [3, 7, 12, 20, 33])
def test_a_killed_dispatcher_changes_nothing(sessions: Sessions, database_url: str, killed_after_turns: int) -> None:
    run_to_end(sessions, post_study(sessions))
    study_id = post_study(sessions, metadata__name="t")
    for _ in range(3):
        dispatcher, _ = make(sessions)
        for _ in range(killed_after_turns):
            if state_of(sessions, study_id) != "completed":
                dispatcher.turn()
        expire_lease(sessions)
    run_to_end(sessions, study_id)
    undisturbed, killed = optuna_trials(database_url), optuna_trials(database_url, "t")
    assert [facts(trial) for trial in undisturbed] == [facts(trial) for trial in killed]


def test_a_lost_worker_costs_one_attempt(sessions: Sessions, database_url: str) -> None:
    study_id = post_study(sessions)
    dispatcher, fake = make(sessions)
    fake.hold = True
    turn_until(dispatcher, lambda: len(fake.submitted) == 1)
    fake.kill(fake.workers()[0])
    turn_until(dispatcher, lambda: len(fake.submitted) == 2)
    first, second = fake.submitted
    assert (second.slice_id, second.attempt) == (first.slice_id, 2)
    fake.hold = False
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    kinds = [event.kind for event in events_of(sessions, study_id)]
    assert kinds.count("worker.lost") == 1
    assert kinds.count("slice.retried") == 1


def test_a_slice_that_kills_its_workers_fails_its_trial_only(sessions: Sessions, database_url: str) -> None:
    study_id = post_study(sessions)
    dispatcher, fake = make(sessions)
    fake.hold = True
    for attempt in (1, 2):
        turn_until(dispatcher, partial(submitted, fake, attempt))
        fake.kill(fake.workers()[0])
    fake.hold = False
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    trials = optuna_trials(database_url)
    assert trials[0].state is TrialState.FAIL
    assert trials[0].user_attrs["outcome"] == "lost"
    assert any(trial.state is TrialState.COMPLETE for trial in trials)


def test_a_stale_attempt_changes_nothing(sessions: Sessions, database_url: str) -> None:
    post_study(sessions)
    dispatcher, fake = make(sessions)
    fake.hold = True
    turn_until(dispatcher, lambda: len(fake.submitted) == 1)
    fake.kill(fake.workers()[0])
    turn_until(dispatcher, lambda: len(fake.submitted) == 2)
    work = fake.submitted[0]
    late = SliceResult(
        slice_id=work.slice_id,
        attempt=1,
        outcome=Outcome.DONE,
        examples_seen=work.until_examples,
        eval_loss=-99.0,
        eval_tokens=1,
        snapshot=SnapshotRef(path=work.snapshot_dir, digest="0" * 64, examples_seen=1),
    )
    fake._events.append(SliceEnded(worker="fake-0", result=late))
    dispatcher.turn()
    assert optuna_trials(database_url)[0].intermediate_values == {}
    with sessions() as session:
        assert session.scalars(select(Slice.state)).one() == "running"


def test_diverged_trials_are_facts_not_retries(sessions: Sessions, database_url: str) -> None:
    def diverges_when_large(work: Any) -> float:
        return float("nan") if work.trial.parameters.learning_rate > 1e-2 else loss_of(work)

    study_id = post_study(sessions)
    run_to_end(sessions, study_id, FakeExecutor(diverges_when_large))
    trials = optuna_trials(database_url)
    failed = [trial for trial in trials if trial.state is TrialState.FAIL]
    assert failed
    assert {trial.user_attrs["outcome"] for trial in failed} == {"diverged"}
    with sessions() as session:
        assert session.scalar(select(func.max(Slice.attempt))) == 1


def test_pause_stops_at_the_next_step_and_resume_goes_on(sessions: Sessions, database_url: str) -> None:
    study_id = post_study(sessions)
    dispatcher, fake = make(sessions)
    fake.hold = True
    turn_until(dispatcher, lambda: len(fake.submitted) == 1)
    ask(sessions, study_id, IntentKind.PAUSE)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "paused")
    for _ in range(5):
        dispatcher.turn()
    assert len(fake.submitted) == 1
    ask(sessions, study_id, IntentKind.RESUME)
    fake.hold = False
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    assert fake.submitted[1].token == (fake.submitted[0].slice_id, 2)


def test_stop_lets_the_running_slice_finish(sessions: Sessions, database_url: str) -> None:
    study_id = post_study(sessions)
    dispatcher, fake = make(sessions)
    turn_until(dispatcher, lambda: len(fake.submitted) == 5)
    fake.hold = True
    ask(sessions, study_id, IntentKind.STOP)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) in ("stopping", "completed"))
    fake.hold = False
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    assert all(trial.state.is_finished() for trial in optuna_trials(database_url))


def test_cancel_ends_at_the_next_step(sessions: Sessions, database_url: str) -> None:
    study_id = post_study(sessions)
    dispatcher, fake = make(sessions)
    fake.hold = True
    turn_until(dispatcher, lambda: len(fake.submitted) == 1)
    ask(sessions, study_id, IntentKind.CANCEL)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "cancelled")
    assert all(trial.state.is_finished() for trial in optuna_trials(database_url))


def test_an_enqueued_point_runs_next(sessions: Sessions, database_url: str) -> None:
    study_id = post_study(sessions)
    dispatcher, fake = make(sessions)
    turn_until(dispatcher, lambda: len(fake.submitted) == 2)
    ask(sessions, study_id, IntentKind.ENQUEUE, parameters={"learning_rate": 0.003, "lora_r": 16})
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    wanted = [trial for trial in optuna_trials(database_url) if trial.params.get("learning_rate") == 0.003]
    assert len(wanted) == 1
    assert wanted[0].params["lora_r"] == 16
    assert wanted[0].intermediate_values


def test_a_point_outside_the_space_is_refused_and_said_so(sessions: Sessions) -> None:
    study_id = post_study(sessions)
    dispatcher, _ = make(sessions)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "running")
    ask(sessions, study_id, IntentKind.ENQUEUE, parameters={"learning_rate": 5.0, "lora_r": 16})
    turn_until(dispatcher, lambda: any(e.kind == "intent.refused" for e in events_of(sessions, study_id)))
    with sessions() as session:
        error = session.scalars(select(Intent.error).where(Intent.kind == "enqueue")).one()
    assert error is not None
    assert "5" in error


def test_a_deleted_study_leaves_its_name_free(sessions: Sessions, database_url: str) -> None:
    study_id = post_study(sessions)
    run_to_end(sessions, study_id)
    dispatcher, _ = make(sessions)
    expire_lease(sessions)
    ask(sessions, study_id, IntentKind.DELETE)

    def deleted() -> bool:
        with sessions() as session:
            return session.scalars(select(Study.deleted_at).where(Study.id == study_id)).one() is not None

    turn_until(dispatcher, deleted)
    again = post_study(sessions)
    turn_until(dispatcher, lambda: state_of(sessions, again) == "completed")
    assert len(optuna_trials(database_url)) == 9


@pytest.mark.parametrize("strategy", get_args(StrategyName))
@pytest.mark.parametrize("cap", [2000, 3300])
def test_a_hard_cap_leaves_enough_to_train_the_leader_to_its_end(
    sessions: Sessions, database_url: str, strategy: str, cap: int
) -> None:
    search = {"strategy": strategy, "deterministic": True, "seed": 3}
    study_id = post_study(sessions, search=search, budget={"max_trials": 60, "max_examples": cap})
    run_to_end(sessions, study_id)
    with sessions() as session:
        study = session.scalars(select(Study)).one()
        spent = session.execute(select(func.sum(Attempt.examples))).scalar_one()
    assert study.state == "completed"
    assert re.search(r"the budget is spent but for|are spent|are left", study.message)
    assert spent <= cap
    searched = [trial for trial in optuna_trials(database_url) if not trial.user_attrs.get("baseline")]
    done = [trial for trial in searched if trial.state is TrialState.COMPLETE]
    best = min(done, key=lambda trial: trial.value or math.inf)
    stopped = {trial.number: trial for trial in searched if trial.state is TrialState.PRUNED}
    ahead = ahead_of(best.intermediate_values, [(number, one.intermediate_values) for number, one in stopped.items()])
    if ahead and len(study.memory["finished_leaders"]) < 3:
        lacked = 1000 - max(stopped[ahead[0]].intermediate_values)
        assert lacked > cap - spent
        assert f"and lacked {lacked} of 1000 examples" in study.message


def test_a_checkpoint_inside_a_slice_is_offered_to_the_next_attempt(sessions: Sessions) -> None:
    post_study(sessions)
    dispatcher, fake = make(sessions)
    fake.hold = True
    turn_until(dispatcher, lambda: len(fake.submitted) == 1)
    work = fake.submitted[0]
    snapshot = SnapshotRef(path=f"{work.snapshot_dir}/checkpoint-40", digest="1" * 64, examples_seen=40)
    progress = Progress(
        slice_id=work.slice_id,
        attempt=work.attempt,
        examples_seen=40,
        step=4,
        train_loss=1.0,
        tokens_per_second=9.0,
        memory_bytes=1,
        checkpoint=snapshot,
    )
    fake.send_progress(SliceProgress(worker="fake-0", progress=progress))
    dispatcher.turn()
    fake.kill("fake-0")
    turn_until(dispatcher, lambda: len(fake.submitted) == 2)
    assert fake.submitted[1].snapshots == (snapshot,)


def test_dropped_connections_lose_no_result(sessions: Sessions, engine: Engine, database_url: str) -> None:
    run_to_end(sessions, post_study(sessions))
    study_id = post_study(sessions, metadata__name="t")
    dispatcher, fake = make(sessions)
    expire_lease(sessions)
    for count in range(12):
        turn_until(dispatcher, partial(submitted, fake, count + 1))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(KILL_OTHERS))
        dispatcher._turn_or_wait(Event())
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    assert [facts(t) for t in optuna_trials(database_url)] == [facts(t) for t in optuna_trials(database_url, "t")]


def test_a_second_dispatcher_stands_by_and_takes_over(sessions: Sessions) -> None:
    study_id = post_study(sessions)
    leader, _ = make(sessions)
    turn_until(leader, lambda: state_of(sessions, study_id) == "running")
    standby, fake = make(sessions)
    standby.turn()
    assert fake.submitted == []
    expire_lease(sessions)
    standby.turn()
    with pytest.raises(LeaseLost):
        turn_until(leader, lambda: False, turns=60)
    turn_until(standby, lambda: state_of(sessions, study_id) == "completed")


def test_studies_on_several_devices_and_on_one_share_the_workers(sessions: Sessions) -> None:
    pair = post_study(sessions, resources={"gpus_per_trial": 2}, budget__max_trials=3)
    single = post_study(sessions, metadata={"name": "single"}, budget__max_trials=3)
    dispatcher, fake = make(sessions, FakeExecutor(loss_of, workers=2))
    turn_until(dispatcher, lambda: {state_of(sessions, study) for study in (pair, single)} == {"completed"})
    ranks = [work.trial.training.ranks for work in fake.submitted]
    assert ranks == sorted(ranks, reverse=True)
    assert set(ranks) == {1, 2}


def test_a_study_that_needs_more_devices_than_there_are_waits_says_so_and_goes_on_with_more(sessions: Sessions) -> None:
    study_id = post_study(sessions, resources={"gpus_per_trial": 4}, budget__max_trials=2)
    other = post_study(sessions, metadata={"name": "other"}, budget__max_trials=2)
    dispatcher, fake = make(sessions, FakeExecutor(loss_of, workers=2))
    turn_until(dispatcher, lambda: state_of(sessions, other) == "completed")
    assert {work.trial.training.ranks for work in fake.submitted} == {1}
    with sessions() as session:
        message = session.execute(select(Study.message).where(Study.id == study_id)).scalar_one()
    assert "gpus_per_trial is 4 and the fake executor has 2 device(s) now" in message
    assert f"it goes on when there are more ({FakeExecutor.devices_setting})" in message
    expire_lease(sessions)
    larger, _ = make(sessions, FakeExecutor(loss_of, workers=4))
    turn_until(larger, lambda: state_of(sessions, study_id) == "completed")
