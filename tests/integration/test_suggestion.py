"""`:suggest`: what is written can be posted, and knows the earlier studies."""

from fastapi.testclient import TestClient
from ruamel.yaml import YAML
from sqlalchemy.orm import Session, sessionmaker

from tests import serving
from tests.dispatching import turn_until
from tests.serving import Json, spec

Sessions = sessionmaker[Session]
ASKED = {"model": "model", "data": "train.jsonl"}
EARLIER_CHOICES = {
    "lora_dropout": [0.0, 0.05],
    "neftune_noise_alpha": [0, 5],
    "effective_batch": [4, 8, 16],
    "warmup_ratio": [0.05, 0.1],
    "weight_decay": [0.0, 0.01],
    "epochs": [1],
}


def suggested(client: TestClient, **more: object) -> Json:
    answer = client.post("/v1/studies:suggest", json={**ASKED, **more})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_first_suggestion_is_valid_and_says_what_is_not_known(client: TestClient) -> None:
    found = suggested(client, eval="eval.jsonl")
    written = YAML(typ="safe", pure=True).load(found["text"])
    assert written == found["spec"]
    assert written["preset"] == "small-data"
    assert written["metadata"]["name"] == "model-train"
    assert written["model"]["dtype"] == "auto"
    assert "  # Bfloat16 on GPUs that have it" in found["text"]
    assert found["expected_seconds"] is None
    assert "unknown before the first study of this model" in found["text"]
    assert "no earlier study of this project resembles it" in found["text"].lower()
    report = client.post("/v1/studies:validate", json=written)
    assert report.status_code == 200, report.text
    assert report.json()["expected_examples"] == found["expected_examples"]


def test_a_suggestion_learns_from_earlier_studies(client: TestClient, sessions: Sessions) -> None:
    space = {"learning_rate": {"low": 3e-5, "high": 5e-4, "log": True}, "lora_r": {"choices": [4, 8, 16]}}
    space |= {name: {"choices": values} for name, values in EARLIER_CHOICES.items()}
    document = spec("model-train", space=space, baseline=None, budget={"max_trials": 30}, search={"strategy": "none"})
    assert client.post("/v1/studies", json=document).status_code == 201
    dispatcher, _ = serving.make_dispatcher(sessions)
    turn_until(dispatcher, lambda: client.get("/v1/studies/model-train").json()["state"] == "completed", turns=3000)
    found = suggested(client)
    assert found["spec"]["metadata"]["name"] == "model-train-2"
    assert [known["study"] for known in found["past"]] == ["model-train"]
    assert found["spec"]["space"]["learning_rate"]["low"] > 3e-5
    assert "best quarter of the trials of model-train" in found["text"]
    assert found["expected_seconds"] > 0
    assert client.post("/v1/studies:validate", json=found["spec"]).status_code == 200


def test_a_suggestion_needs_files_that_can_be_used(client: TestClient) -> None:
    answer = client.post("/v1/studies:suggest", json={**ASKED, "data": "missing.jsonl"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/data/train"
    assert client.post("/v1/studies:suggest", json={"model": "model"}).status_code == 422
