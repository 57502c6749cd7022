"""The note that optuna-dashboard shows of a study."""

import optuna
from optuna_dashboard import get_note
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.database import optuna_url
from hpo_service.intents import IntentKind
from tests.dispatching import ask, make, post_study, state_of, turn_until

Sessions = sessionmaker[Session]
NARROW = {"learning_rate": {"low": 1e-5, "high": 3e-4, "log": True}, "lora_r": {"choices": [4, 8, 16]}}


def note(url: str) -> str:
    return str(get_note(optuna.load_study(study_name="s", storage=optuna_url(url))))


def version(sessions: Sessions) -> int:
    """How often the note was written."""
    query = "SELECT value_json FROM optuna.study_system_attributes WHERE key = 'dashboard:note_ver'"
    with sessions() as session:
        return int(session.execute(text(query)).scalar_one())


def test_the_note_follows_the_state_and_the_best_trial(sessions: Sessions, database_url: str) -> None:
    study_id = post_study(sessions, search__strategy="freeze_thaw")
    dispatcher, fake = make(sessions)
    fake.hold = True
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "running")
    first = note(database_url)
    assert "**s** is running" in first
    assert "No trial has reached a rung yet" in first
    assert "`hpo_state` says `paused`" in first
    assert "(/v1/studies/s/importances)" in first
    fake.hold = False
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    study = optuna.load_study(study_name="s", storage=optuna_url(database_url))
    assert "hpo_state" in study.user_attrs["paused trials"]
    last = note(database_url)
    assert f"Best: trial {study.best_trial.number}, loss {study.best_value:.5g}" in last
    assert "**s** is completed: all 9 trials are decided" in last
    reports = sum(len(trial.intermediate_values) for trial in study.trials)
    assert version(sessions) < reports


def test_the_note_is_not_written_again_after_a_restart(sessions: Sessions, database_url: str) -> None:
    study_id = post_study(sessions)
    dispatcher, _ = make(sessions)
    turn_until(
        dispatcher, lambda: "Best: trial" in (note(database_url) if state_of(sessions, study_id) != "queued" else "")
    )
    ask(sessions, study_id, IntentKind.PAUSE)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "paused")
    written, shown = version(sessions), note(database_url)
    assert "**s** is paused" in shown
    dispatcher.context.studies = None
    ask(sessions, study_id, IntentKind.ENQUEUE, parameters={"lora_r": 4})
    for _ in range(3):
        dispatcher.turn()
    assert (version(sessions), note(database_url)) == (written, shown)


def test_an_edge_is_in_the_note(sessions: Sessions, database_url: str) -> None:
    study_id = post_study(sessions, search__strategy="freeze_thaw", space=NARROW, budget__max_trials=25)
    dispatcher, _ = make(sessions)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed", turns=2000)
    assert "**Edge:** the best learning_rate" in note(database_url)
    assert "hpo study clone s s-wider" in note(database_url)
