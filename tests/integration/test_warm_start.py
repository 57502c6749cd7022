"""Studies that learn from earlier ones: over HTTP, with a real dispatcher and slices that end at once."""

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.storage.tables import Study
from tests import serving
from tests.dispatching import events_of, turn_until
from tests.serving import Json, spec

Sessions = sessionmaker[Session]


def create(client: TestClient, name: str, **search: Any) -> Json:
    learning = {"strategy": "freeze_thaw", "seed": 3, "first_rung_fraction": 0.5, **search}
    document = spec(name, search=learning, budget={"max_trials": 10})
    answer = client.post("/v1/studies", json=document)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def run(sessions: Sessions, client: TestClient, name: str) -> None:
    dispatcher, _ = serving.make_dispatcher(sessions)
    turn_until(dispatcher, lambda: client.get(f"/v1/studies/{name}").json()["state"] == "completed", turns=3000)


def named(past: list[Json]) -> list[str]:
    return [known["study"] for known in past]


@pytest.fixture
def earlier(client: TestClient, sessions: Sessions) -> None:
    """A study with results."""
    assert create(client, "earlier")["past"] == []
    run(sessions, client, "earlier")


@pytest.mark.usefixtures("earlier")
def test_the_next_study_learns_from_the_earlier_one(client: TestClient, sessions: Sessions) -> None:
    (known,) = create(client, "next")["past"]
    assert (known["study"], known["similarity"], known["weight"]) == ("earlier", 1.0, None)
    assert known["trials"] == 10
    run(sessions, client, "next")
    shown = client.get("/v1/studies/next").json()
    assert 0 <= shown["past"][0]["weight"] <= 1
    assert "past" not in shown["resolved"]
    with sessions() as session:
        row = session.scalars(select(Study).where(Study.name == "next")).one()
        assert set(row.resolved["past"][0]["points"][0]) == {"learning_rate", "lora_r"}
    rules = [
        event.payload["numbers"].get("rule") for event in events_of(sessions, row.id) if event.kind == "slice.started"
    ]
    assert "portfolio" in rules


@pytest.mark.usefixtures("earlier")
def test_what_is_learnt_from_can_be_chosen(client: TestClient) -> None:
    assert create(client, "cold", warm_start="off")["past"] == []
    assert create(client, "repeatable", deterministic=True)["past"] == []
    assert named(create(client, "told", deterministic=True, warm_start=["earlier"])["past"]) == ["earlier"]
    report = client.post("/v1/studies:validate", json=spec("checked", search={"strategy": "freeze_thaw"})).json()
    assert named(report["past"]) == ["earlier"]


@pytest.mark.usefixtures("earlier")
def test_a_study_that_does_not_exist_cannot_be_learnt_from(client: TestClient) -> None:
    document = spec("next", search={"strategy": "freeze_thaw", "warm_start": ["other"]})
    answer = client.post("/v1/studies", json=document)
    assert answer.status_code == 422
    assert "studies that could be named: earlier" in answer.json()["detail"]
    assert answer.json()["errors"][0]["pointer"] == "/search/warm_start"


@pytest.mark.usefixtures("earlier")
def test_other_projects_are_never_read(client: TestClient, sessions: Sessions, engine: Engine, root: Path) -> None:
    other = serving.make_project(sessions, "other")
    stranger = serving.serve(engine, serving.settings(root))
    stranger.headers.update(serving.bearer(serving.make_key(sessions, other)))
    assert create(stranger, "next")["past"] == []
    document = spec("named", search={"strategy": "freeze_thaw", "warm_start": ["earlier"]})
    assert stranger.post("/v1/studies", json=document).status_code == 422


def test_what_was_good_elsewhere_is_offered_at_the_nearest_values(client: TestClient, sessions: Sessions) -> None:
    """No trial of the earlier study had a rank of this one's space."""
    wide = spec("earlier", search={"strategy": "freeze_thaw", "seed": 3, "first_rung_fraction": 0.5})
    wide["space"]["lora_r"] = {"choices": [64, 128]}
    wide |= {"baseline": {"learning_rate": 1e-4, "lora_r": 64}, "budget": {"max_trials": 10}}
    assert client.post("/v1/studies", json=wide).status_code == 201
    run(sessions, client, "earlier")
    (known,) = create(client, "next")["past"]
    assert known["trials"] == 10
    run(sessions, client, "next")
    with sessions() as session:
        row = session.scalars(select(Study).where(Study.name == "next")).one()
        (past,) = row.resolved["past"]
        losses = past["losses"]
        assert sorted(losses)[:2] == sorted(losses[index] for index in past["good"])
        good = {round(past["points"][index]["learning_rate"], 12) for index in past["good"]}
        offered = [
            event.trial_number
            for event in events_of(sessions, row.id)
            if event.kind == "slice.started" and event.payload["numbers"].get("rule") == "portfolio"
        ]
    trials = {trial["number"]: trial["parameters"] for trial in client.get("/v1/studies/next/trials").json()["items"]}
    assert offered
    assert {trials[number]["lora_r"] for number in offered} == {16}
    assert {round(trials[number]["learning_rate"], 12) for number in offered} <= good
