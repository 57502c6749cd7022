"""A study whose space has fewer points than its budget has trials, with a real dispatcher."""

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from tests import serving
from tests.dispatching import turn_until
from tests.serving import spec

ENDED = ("completed", "failed")
SPACE = {"lora_r": {"choices": [4, 8, 16]}, "effective_batch": {"choices": [4, 8, 16, 32]}}


@pytest.mark.parametrize("search", [{"strategy": "freeze_thaw"}, {"strategy": "asha", "sampler": "tpe"}], ids=str)
def test_it_ends_and_says_that_all_points_were_tried(
    client: TestClient, sessions: sessionmaker[Session], search: dict[str, str]
) -> None:
    baseline = {"lora_r": 8, "effective_batch": 8}
    document = spec("small", space=SPACE, baseline=baseline, search=search, budget={"max_trials": 20})
    assert client.post("/v1/studies", json=document).status_code == 201
    dispatcher, _ = serving.make_dispatcher(sessions)
    turn_until(dispatcher, lambda: client.get("/v1/studies/small").json()["state"] == "completed", turns=3000)
    shown = client.get("/v1/studies/small").json()
    assert shown["message"].startswith(
        "the space is exhausted: all 12 points of it were tried; all 12 trials are decided"
    )
    trials = client.get("/v1/studies/small/trials").json()["items"]
    points = {(trial["parameters"]["lora_r"], trial["parameters"]["effective_batch"]) for trial in trials}
    assert len(points) == len(trials) == 12


@pytest.mark.parametrize("search", [{"strategy": "freeze_thaw"}, {"strategy": "asha", "sampler": "tpe"}], ids=str)
def test_a_point_that_fixes_nothing_may_be_enqueued_though_nothing_is_left(
    client: TestClient, sessions: sessionmaker[Session], search: dict[str, str]
) -> None:
    """What somebody asks for is trained as it is, all of it sampled here."""
    document = spec("two", space={"lora_r": {"choices": [4, 8]}}, baseline={"lora_r": 8}, search=search,
                    enqueue=[{"lora_r": 4}], budget={"max_trials": 9})  # fmt: skip
    assert client.post("/v1/studies", json=document).status_code == 201
    assert client.post("/v1/studies/two/trials", json={"parameters": {}}).status_code == 202
    dispatcher, _ = serving.make_dispatcher(sessions)
    turn_until(dispatcher, lambda: client.get("/v1/studies/two").json()["state"] in ENDED, turns=3000)
    shown = client.get("/v1/studies/two").json()
    assert (shown["state"], len(client.get("/v1/studies/two/trials").json()["items"])) == ("completed", 3)
    assert shown["message"].startswith("the space is exhausted: all 2 points of it were tried")
