"""Confirmation on a real PostgreSQL with the fake executor: the whole life, steering, restarts, the share."""

import re
from typing import Any

import optuna
import optuna_dashboard
import pytest
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.messages import IntentKind
from hpo_service.dispatcher.snapshots.retention import read_needs
from hpo_service.executors.fake import FakeExecutor
from hpo_service.storage.database import optuna_url
from hpo_service.storage.tables import Attempt, Slice, Study
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
from trainer.spec import Slice as SliceWork

Sessions = sessionmaker[Session]
ENDED = ("completed", "failed", "cancelled")
CHILD = "s/confirm"
TIMED = {"strategy": "asha", "deterministic": False, "seed": 3}


def noisy(work: SliceWork) -> float:
    """A seed moves the loss a little, the baseline's as much as everyone's."""
    return loss_of(work) + 0.0002 * (work.trial.training.seed % 7)


def post(sessions: Sessions, **changes: Any) -> int:
    """The share is enough for all runs, the budget for the whole search, and what is submitted is soon not only the
    baseline's."""
    enough: dict[str, Any] = {
        "confirm": {"share": 0.6},
        "budget__max_examples": 20_000,
        "search": {"strategy": "asha", "deterministic": True, "seed": 3},
    }
    return post_study(sessions, **(enough | changes))


def row(sessions: Sessions, name: str) -> Study | None:
    with sessions() as session:
        return session.scalars(select(Study).where(Study.name == name)).one_or_none()


def message_of(sessions: Sessions, study_id: int) -> str:
    with sessions() as session:
        return session.scalars(select(Study.message).where(Study.id == study_id)).one()


def child_id(sessions: Sessions, name: str = CHILD) -> int:
    found = row(sessions, name)
    assert found is not None
    return found.id


def run_to_end(sessions: Sessions, study_id: int, executor: FakeExecutor | None = None) -> FakeExecutor:
    dispatcher, fake = make(sessions, executor or FakeExecutor(noisy))
    turn_until(dispatcher, lambda: state_of(sessions, study_id) in ENDED)
    return fake


def runs_of(fake: FakeExecutor) -> list[SliceWork]:
    """What was submitted for a confirmation: slices with another seed."""
    return [work for work in fake.submitted if work.trial.training.seed != 0]


def facts(trial: FrozenTrial) -> tuple[Any, ...]:
    run = (trial.user_attrs.get("candidate"), trial.user_attrs.get("seed"), trial.user_attrs.get("baseline"))
    return (trial.number, trial.state, trial.params, trial.value, trial.intermediate_values, run)


def test_a_search_goes_on_to_be_confirmed(sessions: Sessions, database_url: str) -> None:
    study_id = post(sessions)
    fake = run_to_end(sessions, study_id)
    assert state_of(sessions, study_id) == "completed"
    child = row(sessions, CHILD)
    assert child is not None
    assert (child.state, child.parent_study_id) == ("completed", study_id)
    runs = optuna_trials(database_url, CHILD)
    searched = optuna_trials(database_url)
    best = min((trial for trial in searched if trial.state is TrialState.COMPLETE), key=lambda t: t.value or 0)
    assert [run.user_attrs["candidate"] for run in runs[:2]] == [best.number, 0]
    assert runs[1].user_attrs["baseline"] is True
    assert all(run.state is TrialState.COMPLETE for run in runs)
    assert all(list(run.intermediate_values) == [1000] for run in runs)
    assert len({run.user_attrs["candidate"] for run in runs}) == 4
    assert {work.trial.training.seed for work in runs_of(fake)} == {run.user_attrs["seed"] for run in runs}
    assert 0 not in {run.user_attrs["seed"] for run in runs}
    states = [event.payload["message"] for event in events_of(sessions, study_id) if event.kind == "study.state"]
    assert any(message.startswith("confirming: 0 of at most 12") for message in states)


def test_snapshots_of_all_candidates_are_kept(sessions: Sessions, database_url: str) -> None:
    """Whichever of them is confirmed as the best: its adapter is there."""
    study_id = post(sessions)
    run_to_end(sessions, study_id)
    candidates = {run.user_attrs["candidate"] for run in optuna_trials(database_url, CHILD)}
    folders = {f"{study_id}/{trial._trial_id}" for trial in optuna_trials(database_url) if trial.number in candidates}
    with sessions() as session:
        kept = read_needs(session, keep_best=1)[study_id].best
    assert len(folders) == 4
    assert folders == {"/".join(path.split("/")[:2]) for path in kept}


def test_the_dashboard_tells_what_the_runs_are(sessions: Sessions, database_url: str) -> None:
    run_to_end(sessions, post(sessions))
    shown = {
        name: optuna_dashboard.get_note(optuna.load_study(study_name=name, storage=optuna_url(database_url)))
        for name in ("s", CHILD)
    }
    assert "`s/confirm`: [what they say of the best](/v1/studies/s/confirmation)" in shown["s"]
    assert "confirms the best trials of s. It is completed" in shown[CHILD]
    assert "beats your current configuration by" in shown[CHILD]


def test_runs_see_all_evaluation_rows_and_the_test_rows_and_the_search_none_of_them(sessions: Sessions) -> None:
    study_id = post(sessions, data__test="test.jsonl", data__max_eval_examples=10)
    with sessions.begin() as session:
        study = session.scalars(select(Study)).one()
        study.resolved = {**study.resolved, "data": {**study.resolved["data"], "test": "/d/test.jsonl"}}
    fake = run_to_end(sessions, study_id)
    runs = runs_of(fake)
    searched = [work for work in fake.submitted if work not in runs]
    assert runs
    assert {(work.trial.data.test, work.trial.data.max_eval_examples) for work in searched} == {(None, 10)}
    assert {(work.trial.data.test, work.trial.data.max_eval_examples) for work in runs} == {("/d/test.jsonl", None)}


def test_without_the_section_nothing_is_confirmed(sessions: Sessions) -> None:
    study_id = post_study(sessions)
    run_to_end(sessions, study_id)
    assert row(sessions, CHILD) is None


def test_the_share_caps_the_bill_and_the_search_does_not_pay_it(sessions: Sessions, database_url: str) -> None:
    study_id = post(sessions, confirm={"share": 0.5}, budget__max_examples=5000, budget__max_trials=40)
    run_to_end(sessions, study_id)
    with sessions() as session:
        spent = dict(
            session.execute(
                select(Slice.study_id, func.sum(Attempt.examples))
                .join(Attempt, Attempt.slice_id == Slice.id)
                .group_by(Slice.study_id)
            ).all()
        )
    assert 2000 <= spent[child_id(sessions)] <= 2500
    assert spent[study_id] >= 5000
    assert message_of(sessions, study_id) == f"{spent[study_id]} of 5000 examples are spent"


def test_a_small_share_still_pays_for_the_best_and_the_baseline(sessions: Sessions, database_url: str) -> None:
    study_id = post(sessions, confirm={"share": 0.01})
    run_to_end(sessions, study_id)
    runs = optuna_trials(database_url, CHILD)
    assert len(runs) == 2
    assert [bool(run.user_attrs.get("baseline")) for run in runs] == [False, True]


def test_the_baseline_that_wins_the_search_is_confirmed_against_the_next(sessions: Sessions, database_url: str) -> None:
    best_point = {"learning_rate": 3e-3, "lora_r": 8}
    run_to_end(sessions, post(sessions, baseline=best_point))
    runs = optuna_trials(database_url, CHILD)
    assert {run.user_attrs["candidate"] for run in runs} > {0}


def test_pause_and_resume_carry_over(sessions: Sessions, database_url: str) -> None:
    study_id = post(sessions)
    dispatcher, fake = make(sessions, FakeExecutor(noisy))
    turn_until(dispatcher, lambda: len(runs_of(fake)) >= 2)
    fake.hold = True
    ask(sessions, study_id, IntentKind.PAUSE)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "paused")
    assert state_of(sessions, child_id(sessions)) == "paused"
    submitted = len(fake.submitted)
    for _ in range(5):
        dispatcher.turn()
    assert len(fake.submitted) == submitted
    fake.hold = False
    ask(sessions, study_id, IntentKind.RESUME)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    assert state_of(sessions, child_id(sessions)) == "completed"
    assert all(run.state is TrialState.COMPLETE for run in optuna_trials(database_url, CHILD))


@pytest.mark.parametrize("paused", [False, True])
def test_stop_ends_it_with_what_is_known(sessions: Sessions, database_url: str, paused: bool) -> None:
    study_id = post(sessions)
    dispatcher, fake = make(sessions, FakeExecutor(noisy))
    turn_until(dispatcher, lambda: len(runs_of(fake)) >= 3)
    fake.hold = True
    if paused:
        ask(sessions, study_id, IntentKind.PAUSE)
        turn_until(dispatcher, lambda: state_of(sessions, study_id) == "paused")
    ask(sessions, study_id, IntentKind.STOP)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) in ("stopping", "completed"))
    fake.hold = False
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    assert state_of(sessions, child_id(sessions)) == "completed"
    runs = optuna_trials(database_url, CHILD)
    assert all(run.state.is_finished() for run in runs)
    assert 2 <= sum(run.state is TrialState.COMPLETE for run in runs) <= 4


def test_stop_of_the_search_leads_to_confirmation(sessions: Sessions, database_url: str) -> None:
    study_id = post(sessions)
    dispatcher, fake = make(sessions, FakeExecutor(noisy))
    turn_until(dispatcher, lambda: len(fake.submitted) >= 6)
    ask(sessions, study_id, IntentKind.STOP)
    turn_until(dispatcher, lambda: row(sessions, CHILD) is not None)
    assert state_of(sessions, study_id) == "running"
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    assert re.fullmatch(
        r"stopped by the user; trial \d+ led and lacked \d+ of 1000 examples", message_of(sessions, study_id)
    )
    assert optuna_trials(database_url, CHILD)


def test_stop_of_a_paused_search_leads_to_confirmation_and_a_second_stop_ends_it(
    sessions: Sessions, database_url: str
) -> None:
    study_id = post(sessions)
    dispatcher, fake = make(sessions, FakeExecutor(noisy))
    turn_until(dispatcher, lambda: len(fake.submitted) >= 6)
    ask(sessions, study_id, IntentKind.PAUSE)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "paused")
    ask(sessions, study_id, IntentKind.STOP)
    turn_until(dispatcher, lambda: len(runs_of(fake)) >= 2)
    assert state_of(sessions, study_id) == "running"
    fake.hold = True
    ask(sessions, study_id, IntentKind.STOP)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "stopping")
    fake.hold = False
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    message = message_of(sessions, study_id)
    assert message.startswith("stopped by the user; trial ")
    assert message.endswith(" of 1000 examples; the confirmation was stopped")
    assert sum(run.state is TrialState.COMPLETE for run in optuna_trials(database_url, CHILD)) == 2


def test_stop_of_a_paused_confirmation_says_how_both_ended(sessions: Sessions) -> None:
    study_id = post(sessions, budget__max_trials=8)
    dispatcher, fake = make(sessions, FakeExecutor(noisy))
    turn_until(dispatcher, lambda: len(runs_of(fake)) >= 2)
    ask(sessions, study_id, IntentKind.PAUSE)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "paused")
    ask(sessions, study_id, IntentKind.STOP)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    assert message_of(sessions, study_id).endswith("; the confirmation was stopped")


def test_a_deadline_that_ends_the_confirmation_is_told(sessions: Sessions, database_url: str) -> None:
    """It passes in the midst of the race."""
    study_id = post(sessions, search=TIMED, budget__deadline="2999-01-01T00:00:00Z")
    dispatcher, fake = make(sessions, FakeExecutor(noisy))
    turn_until(dispatcher, lambda: len(runs_of(fake)) >= 2)
    with sessions.begin() as session:
        child = session.scalars(select(Study).where(Study.name == CHILD)).one()
        budget = {**child.resolved["budget"], "deadline": "2001-01-01T00:00:00Z"}
        child.resolved = {**child.resolved, "budget": budget}
    expire_lease(sessions)
    run_to_end(sessions, study_id)
    message = message_of(sessions, study_id)
    assert "; the confirmation ended early: " in message
    assert "deadline" in message.split("; the confirmation ended early: ")[1]
    assert len(optuna_trials(database_url, CHILD)) < 12


def test_cancel_ends_both_at_once(sessions: Sessions, database_url: str) -> None:
    study_id = post(sessions)
    dispatcher, fake = make(sessions, FakeExecutor(noisy))
    turn_until(dispatcher, lambda: len(runs_of(fake)) >= 2)
    fake.hold = True
    ask(sessions, study_id, IntentKind.CANCEL)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "cancelled")
    assert state_of(sessions, child_id(sessions)) == "cancelled"
    assert all(run.state.is_finished() for run in optuna_trials(database_url, CHILD))


def test_delete_takes_both_away(sessions: Sessions, database_url: str) -> None:
    study_id = post(sessions)
    run_to_end(sessions, study_id)
    dispatcher, _ = make(sessions)
    expire_lease(sessions)
    ask(sessions, study_id, IntentKind.DELETE)

    def deleted() -> bool:
        with sessions() as session:
            return None not in session.scalars(select(Study.deleted_at)).all()

    turn_until(dispatcher, deleted)
    with pytest.raises(KeyError):
        optuna_trials(database_url, CHILD)
    again = post(sessions)
    turn_until(dispatcher, lambda: state_of(sessions, again) == "completed")
    assert optuna_trials(database_url, CHILD)


def test_a_search_that_has_ended_takes_no_more_trials(sessions: Sessions) -> None:
    study_id = post(sessions, budget__max_trials=8)
    dispatcher, fake = make(sessions, FakeExecutor(noisy))
    turn_until(dispatcher, lambda: bool(runs_of(fake)))
    fake.hold = True
    ask(sessions, study_id, IntentKind.ENQUEUE, parameters={"learning_rate": 0.003, "lora_r": 16})
    turn_until(dispatcher, lambda: any(e.kind == "intent.refused" for e in events_of(sessions, study_id)))
    refused = next(event for event in events_of(sessions, study_id) if event.kind == "intent.refused")
    assert "has ended" in refused.payload["error"]


def test_a_confirmation_of_which_no_run_reached_its_end_is_a_failure(sessions: Sessions, database_url: str) -> None:
    """What was asked for was not done, so the study is not completed; its trials stay as they are."""

    def diverges(work: SliceWork) -> float:
        return float("nan") if work.trial.training.seed else loss_of(work)

    study_id = post(sessions)
    run_to_end(sessions, study_id, FakeExecutor(diverges))
    assert state_of(sessions, study_id) == "failed"
    assert "; the confirmation failed: " in message_of(sessions, study_id)
    assert {run.state for run in optuna_trials(database_url, CHILD)} == {TrialState.FAIL}
    assert {trial.state for trial in optuna_trials(database_url)} == {TrialState.COMPLETE, TrialState.PRUNED}


@pytest.mark.parametrize("killed_after_turns", [5, 11, 23])
def test_a_killed_dispatcher_changes_nothing(sessions: Sessions, database_url: str, killed_after_turns: int) -> None:
    run_to_end(sessions, post(sessions))
    study_id = post(sessions, metadata__name="t")
    for _ in range(6):
        dispatcher, _ = make(sessions, FakeExecutor(noisy))
        for _ in range(killed_after_turns):
            if state_of(sessions, study_id) != "completed":
                dispatcher.turn()
        expire_lease(sessions)
    run_to_end(sessions, study_id)
    for name in ("", "/confirm"):
        undisturbed, killed = optuna_trials(database_url, "s" + name), optuna_trials(database_url, "t" + name)
        assert [facts(trial) for trial in undisturbed] == [facts(trial) for trial in killed]


def test_several_runs_of_a_round_go_at_once(sessions: Sessions, database_url: str) -> None:
    study_id = post(sessions, search={"strategy": "asha", "deterministic": False, "seed": 3})
    dispatcher, fake = make(sessions, FakeExecutor(noisy, workers=4))
    turn_until(dispatcher, lambda: bool(runs_of(fake)))
    fake.hold = True
    turn_until(dispatcher, lambda: len(runs_of(fake)) >= 4)
    first = {work.trial.training.seed for work in runs_of(fake)}
    assert len(first) == 1
    fake.hold = False
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
