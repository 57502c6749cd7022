"""The note that optuna-dashboard shows of a study."""

import math
import re
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from optuna_dashboard import get_note
from optuna_dashboard._note import get_note_from_system_attrs
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.messages import IntentKind
from hpo_service.core.pricing import Prices
from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.executors.fake import FakeExecutor
from hpo_service.storage.database import optuna_url
from tests.dispatching import ask, loss_of, make, post_study, state_of, turn_until
from trainer.spec import Slice

Sessions = sessionmaker[Session]
ENDED = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
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
    assert first.startswith("[Live page](/studies/s)")
    assert "**s** is running" in first
    assert "No trial has reached a rung yet" in first
    assert "`hpo_state` says `paused`" in first
    assert "(/v1/studies/s/importances)" in first
    fake.hold = False
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    study = optuna.load_study(study_name="s", storage=optuna_url(database_url))
    assert "hpo_state" in study.user_attrs["paused trials"]
    reports = sum(len(trial.intermediate_values) for trial in study.trials)
    assert version(sessions) <= 2 * reports + 3, "written when something that it says changes: a slice begins or ends"
    last = note(database_url)
    assert f"Best: trial {study.best_trial.number}, loss {study.best_value:.4f}" in last
    assert "**s** is completed: all 9 trials are decided" in last


def test_the_note_begins_with_which_trials_are_paused_now(sessions: Sessions, database_url: str) -> None:
    """Whenever the workers are busy: a trial that goes on is no longer named."""
    post_study(sessions, search__strategy="asha", budget__max_trials=10)
    dispatcher, fake = make(sessions)
    named = set[int]()
    for _ in range(60):
        dispatcher.turn()
        study = optuna.load_study(study_name="s", storage=optuna_url(database_url)) if fake.submitted else None
        paused = [trial for trial in study.trials if trial.user_attrs.get("hpo_state") == "paused"] if study else []
        first = note(database_url).split("\n")[0] if study else ""
        for trial in paused:
            rung, loss = trial.user_attrs["rung"], trial.user_attrs["last_loss"]
            assert trial.intermediate_values[rung] == loss
            assert max(trial.intermediate_values) == rung
            assert f"trial {trial.number} (loss {loss:.5g} after {rung} examples)" in first
        assert first.count("trial ") == len(paused)
        named |= {trial.number for trial in paused}
    assert len(named) > 5


def diverging(work: Slice) -> float:
    """The baseline goes well, high learning rates do not."""
    return math.nan if work.trial.parameters.learning_rate > 1e-3 else loss_of(work)


def trial_note(url: str, trial: FrozenTrial) -> str:
    study = optuna.load_study(study_name="s", storage=optuna_url(url))
    return str(
        get_note_from_system_attrs(study._storage.get_study_system_attrs(study._study_id), trial._trial_id)["body"]
    )


def test_notes_tell_costs_and_link_to_what_tells_more(sessions: Sessions, database_url: str) -> None:
    study_id = post_study(sessions, search__strategy="freeze_thaw")
    fake, where = FakeExecutor(diverging), "http://mlflow.example"
    dispatcher = Dispatcher(sessions, fake, snapshots=Path("/nonexistent"), prices=Prices(3600.0), mlflow_url=where)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    shown = note(database_url)
    spent = re.search(r"Spent so far: ([\d.]+) USD, .* on a device, (\d+) examples", shown)
    assert spent is not None
    study = optuna.load_study(study_name="s", storage=optuna_url(database_url))
    assert float(spent[1]) == pytest.approx(sum(t.user_attrs["cost_usd"] for t in study.trials), rel=1e-3)
    for link in ("(/studies/s)", "(/v1/studies/s/report)", "(http://mlflow.example)"):
        assert link in shown
    assert {trial.state for trial in study.trials} >= {TrialState.COMPLETE, TrialState.FAIL}
    for trial in study.trials:
        told = trial_note(database_url, trial)
        assert f"**Trial {trial.number}** is {ENDED[trial.state]}" in told
        assert f"{trial.user_attrs['cost_usd']:.4g} USD" in told
        for link in (f"(/studies/s/trials/{trial.number})", "(/v1/studies/s/report)", "(http://mlflow.example)"):
            assert link in told
        assert ("diverged" in told) is (trial.state is TrialState.FAIL)


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


def moved_by_seeds(work: Slice) -> float:
    """New seeds change what the search saw."""
    return loss_of(work) + 0.002 * (work.trial.training.seed % 7)


def test_the_note_takes_confirmed_numbers_once_there_are_such(sessions: Sessions, database_url: str) -> None:
    """The baseline is out after its first seed, and half as long as the winner: the note says all of it."""
    far = {"learning_rate": 1e-5, "lora_r": 8, "epochs": 1}
    near = {"learning_rate": 3e-3, "lora_r": 8, "epochs": 2}
    space = {"learning_rate": {"low": 1e-5, "high": 1e-1, "log": True}, "lora_r": {"choices": [4, 8]},
             "epochs": {"choices": [1, 2]}}  # fmt: skip
    study_id = post_study(
        sessions, space=space, baseline=far, enqueue=[near], confirm={"top": 2, "seeds": 2, "share": 1.0},
        budget={"max_trials": 5, "max_examples": 50_000},
    )  # fmt: skip
    dispatcher, _ = make(sessions, FakeExecutor(moved_by_seeds))
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed", turns=2000)
    url = optuna_url(database_url)
    searched, runs = (optuna.load_study(study_name=name, storage=url).trials for name in ("s", "s/confirm"))
    losses: dict[int, dict[int, float]] = {}
    for run in runs:
        losses.setdefault(run.user_attrs["candidate"], {})[run.user_attrs["seed"]] = run.values[0]
    (first,) = losses[0]
    best = min((number for number in losses if len(losses[number]) == 2), key=lambda n: sum(losses[n].values()))
    mean, shared, baseline = sum(losses[best].values()) / 2, losses[best][first], losses[0][first]
    ends = [searched[number].user_attrs["total_examples"] for number in (best, 0)]
    assert ends[0] == 2 * ends[1]
    shown = note(database_url)
    assert f"**Best: trial {best}, mean loss {mean:.4f} over 2 new seeds, standard deviation " in shown
    assert (
        f"{1 - shared / baseline:.1%} better than the baseline ({shared:.4f} against {baseline:.4f}, each at its own "
        f"end: {ends[0]} and {ends[1]} examples, over the 1 new seed that both have)"
    ) in shown


def test_an_edge_is_in_the_note(sessions: Sessions, database_url: str) -> None:
    study_id = post_study(sessions, search__strategy="freeze_thaw", space=NARROW, budget__max_trials=25)
    dispatcher, _ = make(sessions)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed", turns=2000)
    assert "**Edge:** learning_rate lies at the" in note(database_url)
    assert "hpo study clone s s-wider" in note(database_url)
