"""A confirmation over HTTP: beside its study, never in the list, and in everything that is said of the best."""

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from ruamel.yaml import YAML
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.executors.fake import FakeExecutor
from tests import serving
from tests.dispatching import loss_of, make, turn_until
from tests.serving import spec
from trainer.spec import Slice, TrialFile

Sessions = sessionmaker[Session]
CONFIRM = {"seeds": 2, "share": 1.0}
BUDGET = {"max_trials": 6, "max_examples": 3000}


def noisy(work: Slice) -> float:
    return loss_of(work) + 0.0002 * (work.trial.training.seed % 7)


def dispatcher(sessions: Sessions) -> tuple[Dispatcher, FakeExecutor]:
    return make(sessions, FakeExecutor(noisy, total_examples=serving.ROWS))


def study(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/v1/studies/first").json()
    return found


@pytest.fixture
def confirmed(client: TestClient, sessions: Sessions) -> dict[str, Any]:
    """A study whose best is confirmed."""
    assert client.post("/v1/studies", json=spec(confirm=CONFIRM, budget=BUDGET)).status_code == 201
    leader, _ = dispatcher(sessions)
    turn_until(leader, lambda: study(client)["state"] == "completed")
    return study(client)


def test_the_study_shows_its_confirmation(client: TestClient, confirmed: dict[str, Any]) -> None:
    shown = confirmed["confirmation"]
    assert (shown["state"], shown["runs"]) == ("completed", shown["spent"]["trials"])
    assert shown["spent"]["examples"] == shown["runs"] * serving.ROWS
    assert shown["spent"]["examples"] <= shown["max_examples"] == 3000
    assert shown["dashboard"] != confirmed["dashboard"]
    assert "your current configuration" in shown["sentence"]
    assert sum(candidate["baseline"] for candidate in shown["candidates"]) == 1
    means = [candidate["mean"] for candidate in shown["candidates"]]
    assert means == sorted(means)
    assert all(one["half_width"] > 0 for one in shown["differences"])
    assert client.get("/v1/studies/first/confirmation").json() == shown


def test_the_best_is_the_lowest_confirmed_mean(client: TestClient, confirmed: dict[str, Any]) -> None:
    best = confirmed["best"]
    assert best["confirmed"]["mean"] == best["loss"]
    assert best["loss"] == min(one["mean"] for one in confirmed["confirmation"]["candidates"])
    assert best["improvement"]["relative"] > 0
    text = client.get("/v1/studies/first/best/export").text
    provenance = TrialFile.model_validate(YAML(typ="safe").load(text)).provenance
    assert provenance["confirmed_loss"] == best["loss"]
    searched = {one["trial_number"]: one["searched_loss"] for one in confirmed["confirmation"]["candidates"]}
    assert provenance["searched_loss"] == searched[best["trial_number"]]
    assert provenance["confirmed_seeds"] == best["confirmed"]["seeds"]
    assert provenance["confirmed_half_width"] == best["confirmed"]["half_width"]
    told = {name: provenance[name] for name in ("compared_loss", "baseline_loss", "compared_seeds")}
    improvement = best["improvement"]
    assert list(told.values()) == [improvement["loss"], improvement["baseline_loss"], improvement["seeds"]]


def test_it_is_hidden_from_the_list_and_can_be_read(client: TestClient, confirmed: dict[str, Any]) -> None:
    assert [one["name"] for one in client.get("/v1/studies").json()["items"]] == ["first"]
    runs = client.get("/v1/studies/first/confirmation/trials").json()["items"]
    assert len(runs) == confirmed["confirmation"]["runs"]
    run = client.get("/v1/studies/first/confirmation/trials/0").json()
    assert run["state"] == "COMPLETE"
    assert run["history"][0]["outcome"] == "done"
    assert sum(confirmed["trials"].values()) == 6
    assert confirmed["spent"]["trials"] == 6


def test_test_rows_are_told_of_runs_only(client: TestClient, sessions: Sessions) -> None:
    data = {"train": "train.jsonl", "eval": "eval.jsonl", "test": "eval.jsonl"}
    client.post("/v1/studies", json=spec(confirm=CONFIRM, budget=BUDGET, data=data))
    leader, fake = dispatcher(sessions)
    turn_until(leader, lambda: study(client)["state"] == "completed")
    ended = study(client)
    tested = [work for work in fake.submitted if work.trial.data.test is not None]
    assert len(tested) == ended["confirmation"]["runs"]
    assert all(one["test_loss"] == one["mean"] for one in ended["confirmation"]["candidates"])
    assert ended["best"]["confirmed"]["test_loss"] == ended["best"]["loss"]
    assert "On the test rows trial" in ended["confirmation"]["sentence"]


def test_while_it_runs_the_search_has_the_best_and_is_closed(client: TestClient, sessions: Sessions) -> None:
    client.post("/v1/studies", json=spec(confirm=CONFIRM, budget=BUDGET))
    leader, _ = dispatcher(sessions)
    turn_until(leader, lambda: (study(client)["confirmation"] or {}).get("runs") == 1)
    assert study(client)["forecast"] is None  # it was the search's
    running = study(client)
    assert running["state"] == "running"
    assert running["message"].startswith("confirming: 1 of at most ")
    assert running["best"]["confirmed"] is None
    assert running["confirmation"]["sentence"] == "Nothing is confirmed yet."
    refused = client.patch("/v1/studies/first", json={"budget": {"max_trials": 9}})
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert "has ended" in refused.json()["detail"]
    assert client.post("/v1/studies/first:stop").status_code == 202
    turn_until(leader, lambda: study(client)["state"] == "completed")
    assert study(client)["message"].endswith("the confirmation was stopped")


def test_without_confirm_there_is_none(client: TestClient) -> None:
    client.post("/v1/studies", json=spec())
    assert study(client)["confirmation"] is None
    for path in ("", "/trials", "/trials/0"):
        assert client.get(f"/v1/studies/first/confirmation{path}").status_code == 404


def test_validation_tells_its_price_apart(client: TestClient, root: Path) -> None:
    plain = client.post("/v1/studies:validate", json=spec()).json()
    report = client.post("/v1/studies:validate", json=spec(confirm={"share": 0.2})).json()
    assert plain["confirmation_examples"] is None
    assert report["expected_examples"] == plain["expected_examples"]
    assert report["confirmation_runs"] == 2
    assert report["confirmation_examples"] == 2 * serving.ROWS


def test_test_rows_must_exist_and_be_of_use(client: TestClient, root: Path) -> None:
    data = {"train": "train.jsonl", "eval": "eval.jsonl"}
    missing = client.post("/v1/studies", json=spec(data={**data, "test": "nowhere.jsonl"}))
    assert missing.status_code == 422
    assert missing.json()["errors"][0]["pointer"] == "/data/test"
    report = client.post("/v1/studies:validate", json=spec(data={**data, "test": "eval.jsonl"})).json()
    assert any("data.test is looked at by a confirmation only" in warning for warning in report["warnings"])
    assert report["resolved"]["data"]["test"] == str(root / "eval.jsonl")


def test_the_name_of_confirmations_is_taken(client: TestClient) -> None:
    answer = client.post("/v1/studies", json=spec("confirm"))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/metadata/name"
