"""A promotion becomes a model, with the real worker on the real small model: merged, loaded, asked; and other rows."""

import io
import json
import math
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from safetensors import safe_open
from sqlalchemy.orm import Session, sessionmaker
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpo_service.core.settings import Settings
from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.executors.local import LocalExecutor, LocalWorkers

EXAMPLES = Path(__file__).parents[2] / "examples"
MOST_SECONDS = 240.0
Json = dict[str, Any]
STUDY: Json = {
    "metadata": {"name": "study"},
    "model": {"path": "tiny-llama"},
    "data": {"train": "train.jsonl", "eval": "eval.jsonl", "max_length": 96},
    "data_checks": {"enabled": False},
    "space": {"learning_rate": {"low": 1e-4, "high": 3e-2, "log": True}, "lora_r": 4, "effective_batch": 8},
    "baseline": {"learning_rate": 5e-3, "lora_r": 4},
    "search": {"strategy": "none", "seed": 7, "deterministic": True},
    "budget": {"max_trials": 2},
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Roots with the model and some rows of its data."""
    (tmp_path / "roots").mkdir()
    shutil.copytree(EXAMPLES / "tiny-llama", tmp_path / "roots" / "tiny-llama")
    for name, source, rows in (
        ("train", "train", slice(64)),
        ("eval", "eval", slice(24)),
        ("test", "eval", slice(24, 40)),
    ):
        lines = (EXAMPLES / "wordnet-instruct" / f"{source}.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / "roots" / f"{name}.jsonl").write_text("".join(lines[rows]))
    return Settings(home=tmp_path / "home", roots=(tmp_path / "roots",))


@pytest.fixture
def dispatcher(sessions: sessionmaker[Session], settings: Settings) -> Iterator[Dispatcher]:
    home, snapshots = settings.home_path(), settings.snapshots_location()
    workers = LocalWorkers(snapshots=snapshots, tokens=home / "tokens", logs=home / "logs", count=1, threads=1)
    executor = LocalExecutor(workers)
    dispatcher = Dispatcher(sessions, executor, snapshots=snapshots)
    yield dispatcher
    dispatcher.context.proposals.close()
    executor.close()


@pytest.fixture
def promoted(client: TestClient, dispatcher: Dispatcher) -> TestClient:
    """A client whose promotion `bot` is the only trial of a study."""
    assert client.post("/v1/studies", json=STUDY).status_code == 201
    turn_until(dispatcher, lambda: client.get("/v1/studies/study").json()["state"] == "completed")
    assert client.post("/v1/promotions", json={"study": "study", "name": "bot"}).status_code == 201
    return client


def turn_until(dispatcher: Dispatcher, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + MOST_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        dispatcher.turn()


def delivered(client: TestClient, dispatcher: Dispatcher, **asked: Any) -> Json:
    """The delivery at its end."""
    answer = client.post("/v1/promotions/bot/latest/deliveries", json=asked)
    assert answer.status_code == 202, answer.text
    path = answer.headers["location"]
    turn_until(dispatcher, lambda: client.get(path).json()["state"] in ("completed", "failed"))
    made: Json = client.get(path).json()
    return made


def test_test_rows_are_looked_at_by_confirmation_and_delivery(client: TestClient, dispatcher: Dispatcher) -> None:
    """The search never saw them, so its fingerprints and its snapshot do not know them; neither is in the way."""
    spec = STUDY | {"data": STUDY["data"] | {"test": "test.jsonl"}, "confirm": {"top": 1, "seeds": 1, "share": 1.0}}
    assert client.post("/v1/studies", json=spec).status_code == 201
    turn_until(dispatcher, lambda: client.get("/v1/studies/study").json()["state"] in ("completed", "failed"))
    study = client.get("/v1/studies/study").json()
    assert study["state"] == "completed", study["message"]
    runs = [run for candidate in study["confirmation"]["candidates"] for run in candidate["runs"]]
    assert {run["state"] for run in runs} == {"complete"}
    assert all(run["test_loss"] > 0 for run in runs)
    assert study["best"]["confirmed"]["test_loss"] > 0
    assert client.post("/v1/promotions", json={"study": "study", "name": "bot"}).status_code == 201
    digests = client.get("/v1/promotions/bot/1").json()["digests"]
    assert len({digests["train"], digests["eval"], digests["test"]}) == 3
    assert len(digests["test"]) == 64
    made = delivered(client, dispatcher)
    assert (made["state"], made["reuses"], made["losses"]["reused"]) == ("completed", True, True), made
    assert made["losses"]["test_loss"] > 0


def test_a_promotion_becomes_a_model_that_answers(
    promoted: TestClient, dispatcher: Dispatcher, settings: Settings, tmp_path: Path
) -> None:
    made = delivered(promoted, dispatcher, merge=True)
    assert (made["state"], made["reuses"], made["losses"]["reused"]) == ("completed", True, True)
    assert made["losses"]["loss"] == made["losses"]["promoted_loss"]
    adapter, merged = made["artifacts"]
    assert merged["perplexity_after"] == pytest.approx(merged["perplexity_before"], rel=1e-4)
    assert merged["perplexity_after"] == pytest.approx(math.exp(made["losses"]["loss"]), rel=1e-4)

    with tarfile.open(fileobj=io.BytesIO(promoted.get("/v1/deliveries/1/artifacts/merged").content)) as archive:
        archive.extractall(tmp_path / "model", filter="data")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    rows = map(json.loads, (settings.roots[0] / "eval.jsonl").read_text().splitlines())
    assert any(row["input"] in merged["prompt"] for row in rows)
    asked = tokenizer(merged["prompt"], return_tensors="pt", add_special_tokens=False)
    words = model.generate(**asked, max_new_tokens=24, do_sample=False)[0, asked["input_ids"].shape[1] :]
    said = tokenizer.decode(words, skip_special_tokens=True)
    assert merged["generated"].strip()
    assert said[:20] == merged["generated"][:20]
    name = "model.layers.0.self_attn.q_proj.weight"
    with (
        safe_open(settings.roots[0] / "tiny-llama" / "model.safetensors", "pt") as base,
        safe_open(tmp_path / "model" / "model.safetensors", "pt") as final,
    ):
        assert not torch.equal(base.get_tensor(name), final.get_tensor(name))

    again = delivered(promoted, dispatcher, retrain=True)
    assert (again["reuses"], again["losses"]["reused"]) == (False, False)
    assert again["losses"]["loss"] == made["losses"]["loss"]
    weights = [next(file for file in one["files"] if file["name"] == "adapter_model.safetensors")
               for one in (adapter, again["artifacts"][0])]  # fmt: skip
    assert weights[0] == weights[1]


def test_rows_that_changed_are_no_obstacle_while_the_adapter_is_there(
    promoted: TestClient, dispatcher: Dispatcher, settings: Settings
) -> None:
    """Without it nothing else is trained in its place."""
    train = settings.roots[0] / "train.jsonl"
    rows = train.read_text()
    train.write_text("".join(reversed(rows.splitlines(keepends=True))))
    refused = delivered(promoted, dispatcher, retrain=True)
    assert refused["state"] == "failed"
    assert f"{train} has changed" in refused["message"]
    assert "Bring the rows back" in refused["message"]
    assert (refused["artifacts"], refused["losses"]) == ([], None)
    train.write_text(rows)
    for manifest in (settings.home_path() / "snapshots").rglob("manifest.json"):
        manifest.unlink()
    made = delivered(promoted, dispatcher)
    assert (made["state"], made["reuses"], made["losses"]["reused"]) == ("completed", False, False)
    assert made["losses"]["loss"] == made["losses"]["promoted_loss"]
