"""Studies with several objectives: trials still pause, Optuna knows all values, the front is told."""

import math
from typing import Any

import optuna
import pytest
from fastapi.testclient import TestClient
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.pricing import Prices
from hpo_service.executors.fake import FakeExecutor
from hpo_service.storage.database import optuna_url
from tests import serving
from tests.dispatching import make, post_study, state_of, turn_until
from tests.serving import spec
from trainer.spec import Slice

Sessions = sessionmaker[Session]
OBJECTIVES = ["eval_loss", "adapter_parameters"]
SPACE = {"learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}, "lora_r": {"choices": [4, 8, 16, 32, 64]}}


def rank_helps(work: Slice) -> float:
    """The loss falls with the rank, so size and loss are at odds."""
    parameters = work.trial.parameters
    return 2.0 + 4.0 / parameters.lora_r + 1.0 / math.sqrt(work.until_examples)


@pytest.mark.parametrize("strategy", ["freeze_thaw", "asha"])
def test_trials_pause_and_optuna_knows_every_value(sessions: Sessions, database_url: str, strategy: str) -> None:
    search = {"strategy": strategy, "deterministic": True, "objectives": OBJECTIVES}
    study_id = post_study(sessions, search=search, space=SPACE, budget={"max_trials": 20})
    dispatcher, fake = make(sessions, FakeExecutor(rank_helps))
    turn_until(dispatcher, lambda: len(fake.submitted) > 12)
    early = optuna.load_study(study_name="s", storage=optuna_url(database_url))
    assert any(trial.user_attrs["hpo_state"] == "paused" for trial in early.trials)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed", turns=2000)
    study = optuna.load_study(study_name="s", storage=optuna_url(database_url))
    assert study.directions == [StudyDirection.MINIMIZE, StudyDirection.MINIMIZE]
    assert study.metric_names == OBJECTIVES
    assert all(trial.state.is_finished() for trial in study.trials)
    for trial in study.trials:
        assert trial.values[1] == 1000 * trial.params["lora_r"]
        assert trial.values[0] == trial.intermediate_values[max(trial.intermediate_values)]
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    sizes = {trial.values[1] for trial in study.trials if trial.state is TrialState.COMPLETE}
    assert len(sizes) > 1
    assert len(study.best_trials) > 1


def test_the_front_marks_what_is_not_at_its_end(client: TestClient, sessions: Sessions) -> None:
    search = {"strategy": "freeze_thaw", "deterministic": True, "objectives": OBJECTIVES}
    client.post("/v1/studies", json=spec(search=search, space=SPACE, budget={"max_trials": 20}))
    dispatcher, fake = serving.make_dispatcher(sessions)
    fake.loss = rank_helps
    assert client.get("/v1/studies/first/pareto").json()["items"] == []
    turn_until(dispatcher, lambda: len(fake.submitted) > 30)
    front = client.get("/v1/studies/first/pareto").json()
    assert front["objectives"] == [{"name": name, "goal": "minimize"} for name in OBJECTIVES]
    points = front["items"]
    assert [point["values"]["eval_loss"] for point in points] == sorted(p["values"]["eval_loss"] for p in points)
    sizes = [point["values"]["adapter_parameters"] for point in points]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 1
    trials = {trial["number"]: trial for trial in client.get("/v1/studies/first/trials").json()["items"]}
    for point in points:
        trial = trials[point["trial_number"]]
        assert point["provisional"] == (trial["state"] != "COMPLETE")
        assert point["examples"] == trial["examples_seen"]
        assert point["values"]["eval_loss"] == trial["losses"][-1]["loss"]
    assert any(point["provisional"] for point in points)
    best = client.get("/v1/studies/first/best").json()
    complete = [trial["loss"] for trial in trials.values() if trial["state"] == "COMPLETE"]
    assert best["loss"] == min(complete)
    decisions = client.get("/v1/studies/first/decisions").json()["items"]
    assert all("weight_adapter_parameters" in decision["numbers"] for decision in decisions)
    assert client.get("/v1/studies/first").json()["outlook"] is None


def test_speed_and_money_are_measured(sessions: Sessions, database_url: str) -> None:
    objectives: list[Any] = ["eval_loss", {"name": "train_tokens_per_second", "goal": "maximize"}, "cost_usd"]
    search = {"strategy": "asha", "objectives": objectives}
    study_id = post_study(sessions, search=search, space=SPACE, budget={"max_trials": 8})
    dispatcher, _ = make(sessions, FakeExecutor(rank_helps))
    dispatcher.context.prices = Prices(3600.0)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed", turns=2000)
    study = optuna.load_study(study_name="s", storage=optuna_url(database_url))
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MAXIMIZE", "MINIMIZE"]
    for trial in study.trials:
        spent, examples = trial.user_attrs["cost_usd"], trial.user_attrs["examples"]
        assert trial.values[1] == trial.user_attrs["tokens"] / trial.user_attrs["train_seconds"]
        assert trial.values[2] == pytest.approx(spent / examples * trial.user_attrs["total_examples"])


def test_a_study_with_one_objective_has_a_front_of_one_loss(client: TestClient, sessions: Sessions) -> None:
    client.post("/v1/studies", json=spec())
    dispatcher, _ = serving.make_dispatcher(sessions)
    turn_until(dispatcher, lambda: client.get("/v1/studies/first").json()["state"] == "completed")
    front = client.get("/v1/studies/first/pareto").json()
    assert [objective["name"] for objective in front["objectives"]] == ["eval_loss"]
    assert {point["values"]["eval_loss"] for point in front["items"]} == {
        min(trial["losses"][-1]["loss"] for trial in client.get("/v1/studies/first/trials").json()["items"])
    }


@pytest.mark.parametrize(
    ("strategy", "seed"), [("asha", 2), ("asha", 3), ("successive_halving", 1), ("freeze_thaw", 1)]
)
def test_a_study_that_ends_by_itself_lacks_nothing_by_the_objectives_that_it_searched_by(
    client: TestClient, sessions: Sessions, strategy: str, seed: int
) -> None:
    search = {"strategy": strategy, "seed": seed, "deterministic": True, "objectives": OBJECTIVES}
    client.post("/v1/studies", json=spec(search=search, space=SPACE, budget={"max_trials": 8}))
    dispatcher, fake = serving.make_dispatcher(sessions)
    fake.loss = rank_helps
    turn_until(dispatcher, lambda: client.get("/v1/studies/first").json()["state"] == "completed", turns=2000)
    decisions = client.get("/v1/studies/first/decisions").json()["items"]
    finished = {decision["trial_number"] for decision in decisions if decision["rule"] == "finish"}
    message = client.get("/v1/studies/first").json()["message"]
    assert "lacked" not in message or (len(finished) == 3 and "by its objectives together" in message)
