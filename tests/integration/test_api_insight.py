"""Why the search did what it did, over HTTP."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from tests import serving
from tests.dispatching import turn_until
from tests.serving import Json, spec

Sessions = sessionmaker[Session]
SEARCH = {"strategy": "freeze_thaw", "deterministic": True, "seed": 3}


def run(client: TestClient, sessions: Sessions, **changes: Any) -> None:
    """Post the study `first` and let it run to its end."""
    client.post("/v1/studies", json=spec(**{"search": SEARCH, "budget": {"max_trials": 14}, **changes}))
    dispatcher, _ = serving.make_dispatcher(sessions)
    turn_until(dispatcher, lambda: client.get("/v1/studies/first").json()["state"] == "completed", turns=2000)


@pytest.fixture
def ended(client: TestClient, sessions: Sessions) -> TestClient:
    """A client whose study `first` has run to its end by freeze-thaw."""
    run(client, sessions)
    return client


def pages(client: TestClient, path: str, page_size: int) -> list[Json]:
    items: list[Json] = []
    token: str | None = None
    while True:
        page = client.get(path, params={"page_size": page_size, **({"page_token": token} if token else {})}).json()
        items += page["items"]
        token = page["next_page_token"]
        if token is None:
            return items


def test_every_decision_is_told_with_its_numbers_and_its_outcome(ended: TestClient) -> None:
    decisions = pages(ended, "/v1/studies/first/decisions", 7)
    assert [decision["number"] for decision in decisions] == list(range(1, len(decisions) + 1))
    trials = {trial["number"]: trial for trial in ended.get("/v1/studies/first/trials").json()["items"]}
    for decision in decisions:
        losses = {rung["examples"]: rung["loss"] for rung in trials[decision["trial_number"]]["losses"]}
        assert decision["outcome"] == "done"
        assert decision["loss"] == losses[decision["until_examples"]]
        assert decision["from_examples"] == max((r for r in losses if r < decision["until_examples"]), default=0)
    assert sum(len(trial["losses"]) for trial in trials.values()) == len(decisions)
    weighed = [decision["numbers"] for decision in decisions if decision["rule"] == "improvement"]
    assert weighed
    assert all(numbers["expected_improvement"] >= 0 and numbers["cost_in_full_trials"] > 0 for numbers in weighed)
    assert any(numbers.get("runner_up_cost_in_full_trials") for numbers in weighed)


def test_a_slice_that_runs_has_no_loss_yet(client: TestClient, sessions: Sessions) -> None:
    client.post("/v1/studies", json=spec(search=SEARCH))
    dispatcher, fake = serving.make_dispatcher(sessions)
    fake.hold = True
    turn_until(dispatcher, lambda: bool(client.get("/v1/studies/first/decisions").json()["items"]))
    (decision,) = client.get("/v1/studies/first/decisions").json()["items"]
    assert (decision["outcome"], decision["loss"], decision["from_examples"]) == ("running", None, 0)
    assert decision["reason"] == "the baseline comes first"


def test_a_study_without_decisions_has_an_empty_list(client: TestClient) -> None:
    client.post("/v1/studies", json=spec())
    assert client.get("/v1/studies/first/decisions").json() == {"items": [], "next_page_token": None}
    assert client.get("/v1/studies/second/decisions").status_code == 404


def test_a_search_stops_on_evidence_and_says_what_more_would_buy(client: TestClient, sessions: Sessions) -> None:
    search = {**SEARCH, "stop_when": {"regret_below": 0.02, "patience": 2}}
    run(client, sessions, search=search, budget={"max_trials": 100})
    study = client.get("/v1/studies/first").json()
    assert "search.stop_when" in study["message"]
    assert sum(study["trials"].values()) < 100
    outlook = study["outlook"]
    assert outlook["tenth_of_the_bill"]["gpu_hours"] == pytest.approx(study["spent"]["seconds"] / 36000)
    assert outlook["tenth_of_the_bill"]["expected_improvement"] > 0
    assert outlook["tenth_of_the_bill"]["usd"] is None
    assert outlook["ten_gpu_hours"] is None
    numbers = {d["number"]: d["numbers"] for d in pages(client, "/v1/studies/first/decisions", 500)}
    assert outlook["best_loss"] == numbers[outlook["decision"]]["best_loss"]


def test_a_strategy_without_a_model_has_no_outlook(client: TestClient, sessions: Sessions) -> None:
    run(client, sessions, search={"strategy": "asha", "deterministic": True}, budget={"max_trials": 4})
    assert client.get("/v1/studies/first").json()["outlook"] is None
