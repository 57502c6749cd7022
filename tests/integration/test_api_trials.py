"""Trials over HTTP: what was tried, logs, adapters, enqueued points."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.storage.tables import Slice
from tests import serving
from tests.dispatching import turn_until
from tests.serving import spec

Sessions = sessionmaker[Session]


@pytest.fixture
def ended(client: TestClient, sessions: Sessions) -> TestClient:
    """A client whose study `first` has run to its end."""
    client.post("/v1/studies", json=spec())
    dispatcher, _ = serving.make_dispatcher(sessions)
    turn_until(dispatcher, lambda: client.get("/v1/studies/first").json()["state"] == "completed")
    return client


def write_snapshot(root: Path, sessions: Sessions, number: int, *, slot: str = "1") -> Path:
    """A real snapshot on disk, known as the newest of the trial."""
    with sessions.begin() as session:
        row = session.scalars(
            select(Slice).where(Slice.trial_number == number).order_by(Slice.until_examples.desc())
        ).first()
        assert row is not None
        path = f"{row.study_id}/{row.optuna_trial_id}/{row.until_examples}/{slot}"
        ref = serving.write_snapshot(root / "home" / "snapshots", path, examples_seen=row.until_examples)
        row.snapshots = [ref.model_dump(), *row.snapshots]
    return root / "home" / "snapshots" / path


def test_trials_are_listed_by_number_in_pages(ended: TestClient) -> None:
    first = ended.get("/v1/studies/first/trials", params={"page_size": 4}).json()
    token = first["next_page_token"]
    second = ended.get("/v1/studies/first/trials", params={"page_size": 4, "page_token": token}).json()
    trials = first["items"] + second["items"]
    assert [trial["number"] for trial in trials] == list(range(6))
    assert second["next_page_token"] is None
    baseline = trials[0]
    assert baseline["baseline"] is True
    assert (baseline["parameters"]["learning_rate"], baseline["parameters"]["lora_r"]) == (1e-4, 8)
    assert baseline["losses"][-1]["examples"] == baseline["examples_seen"] == baseline["total_examples"]
    assert all(trial["attempts"] >= 1 and trial["state"] in ("COMPLETE", "PRUNED") for trial in trials)
    assert all(isinstance(trial["parameters"]["lora_r"], int) for trial in trials)


def test_a_trial_has_its_history(ended: TestClient) -> None:
    trial = ended.get("/v1/studies/first/trials/0").json()
    assert len(trial["history"]) == trial["attempts"] == len(trial["losses"])
    assert {attempt["outcome"] for attempt in trial["history"]} == {"done"}
    assert trial["history"][-1]["until_examples"] == trial["losses"][-1]["examples"]
    assert trial["seconds"] == pytest.approx(sum(attempt["seconds"] for attempt in trial["history"]))
    assert trial["adapter_available"] is True
    assert ended.get("/v1/studies/first/trials/99").status_code == 404


def test_enqueued_points_are_tried(client: TestClient, sessions: Sessions) -> None:
    client.post("/v1/studies", json=spec())
    point = {"parameters": {"learning_rate": 3e-3, "lora_r": 16}}
    headers = {"Idempotency-Key": "p"}
    assert client.post("/v1/studies/first/trials", json=point, headers=headers).status_code == 202
    assert client.post("/v1/studies/first/trials", json=point, headers=headers).json()["pending"] == [
        "create",
        "enqueue",
    ]
    dispatcher, fake = serving.make_dispatcher(sessions)
    fake.hold = True
    turn_until(dispatcher, lambda: bool(client.get("/v1/studies/first/trials").json()["items"]))
    waiting = [t for t in client.get("/v1/studies/first/trials").json()["items"] if t["state"] == "WAITING"]
    assert [trial["parameters"] for trial in waiting][-1] == point["parameters"]


@pytest.mark.parametrize(
    ("parameters", "pointer"),
    [
        ({"learning_rate": 5.0}, "/parameters/learning_rate"),
        ({"lora_r": 5}, "/parameters/lora_r"),
        ({"lora_q": 8}, "/parameters/lora_q"),
        ({"learning_rate": "fast"}, "/parameters/learning_rate"),
    ],
)
def test_points_outside_the_space_are_refused(client: TestClient, parameters: dict[str, Any], pointer: str) -> None:
    client.post("/v1/studies", json=spec())
    answer = client.post("/v1/studies/first/trials", json={"parameters": parameters})
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert client.get("/v1/studies/first").json()["pending"] == ["create"]


def test_points_need_room_and_a_living_study(client: TestClient, sessions: Sessions) -> None:
    client.post("/v1/studies", json=spec(budget={"max_trials": 2}))
    point = {"parameters": {"lora_r": 4}}
    assert client.post("/v1/studies/first/trials", json=point).status_code == 202
    full = client.post("/v1/studies/first/trials", json=point)
    assert (full.status_code, "max_trials" in full.json()["detail"]) == (409, True)
    with sessions.begin() as session:
        session.execute(text("UPDATE hpo.studies SET state = 'completed'"))
    assert client.post("/v1/studies/first/trials", json=point).status_code == 409


def test_a_log_is_plain_text(ended: TestClient, sessions: Sessions, root: Path) -> None:
    assert ended.get("/v1/studies/first/trials/1/logs").text == ""
    log = write_snapshot(root, sessions, 1).parents[1] / "log.jsonl"
    log.write_text("".join(json.dumps({"step": step, "loss": "<b>"}) + "\n" for step in range(100)))
    answer = ended.get("/v1/studies/first/trials/1/logs", params={"tail": 3})
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert [json.loads(line)["step"] for line in answer.text.splitlines()] == [97, 98, 99]
    log.unlink()
    log.symlink_to("/etc/passwd")
    assert ended.get("/v1/studies/first/trials/1/logs").text == ""


def test_an_adapter_is_a_tar_of_what_was_recorded(ended: TestClient, sessions: Sessions, root: Path) -> None:
    write_snapshot(root, sessions, 0)
    answer = ended.get("/v1/studies/first/trials/0/adapter")
    assert answer.status_code == 200, answer.text
    assert len(answer.content) == int(answer.headers["content-length"])
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        members = {member.name: archive.extractfile(member) for member in archive}
        content = {name: file.read() for name, file in members.items() if file is not None}
    assert content == {
        name: serving.SNAPSHOT_FILES[name] for name in ("adapter_config.json", "adapter_model.safetensors")
    }


def test_a_damaged_adapter_is_not_sent(ended: TestClient, sessions: Sessions, root: Path) -> None:
    (write_snapshot(root, sessions, 0) / "adapter_model.safetensors").write_bytes(b"Weights" * 1000)
    answer = ended.get("/v1/studies/first/trials/0/adapter")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_an_older_whole_snapshot_is_sent_instead(ended: TestClient, sessions: Sessions, root: Path) -> None:
    write_snapshot(root, sessions, 0, slot="1")
    (write_snapshot(root, sessions, 0, slot="2") / "adapter_config.json").unlink()
    assert ended.get("/v1/studies/first/trials/0/adapter").status_code == 200


def test_the_newest_trials_come_first_if_asked(client: TestClient, sessions: Sessions) -> None:
    client.post("/v1/studies", json=spec())
    dispatcher, _ = serving.make_dispatcher(sessions)
    turn_until(dispatcher, lambda: client.get("/v1/studies/first").json()["state"] == "completed")
    asked: dict[str, Any] = {"newest_first": True, "page_size": 4}
    first = client.get("/v1/studies/first/trials", params=asked).json()
    second = client.get("/v1/studies/first/trials", params={**asked, "page_token": first["next_page_token"]}).json()
    assert [trial["number"] for trial in first["items"] + second["items"]] == [5, 4, 3, 2, 1, 0]
    assert second["next_page_token"] is None
