"""A study whose snapshots are in an object store, with the real worker: written, resumed from, sent, swept."""

import io
import os
import signal
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.settings import Settings
from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.executors.local import LocalExecutor, LocalWorkers
from hpo_service.storage.tables import Attempt, Event, Slice
from tests.object_store import ObjectStorage, served_s3
from trainer.snapshots.stores.marker import read_marker

EXAMPLES = Path(__file__).parents[2] / "examples"
STUDY: dict[str, Any] = {
    "metadata": {"name": "study"},
    "model": {"path": "tiny-llama"},
    "data": {
        "train": "wordnet-instruct/train.jsonl",
        "eval": "wordnet-instruct/eval.jsonl",
        "max_length": 64,
        "max_train_examples": 64,
        "max_eval_examples": 16,
    },
    "data_checks": {"enabled": False},
    "space": {"learning_rate": {"low": 1e-4, "high": 3e-2, "log": True}, "lora_r": 4, "effective_batch": 8},
    "search": {"strategy": "asha", "seed": 7, "deterministic": True, "first_rung_fraction": 0.25},
    "budget": {"max_trials": 2},
}
MOST_SECONDS = 240.0


@pytest.fixture
def storage() -> Iterator[ObjectStorage]:
    with pytest.MonkeyPatch.context() as patch, served_s3(patch) as storage:
        yield storage


@pytest.fixture
def settings(tmp_path: Path, storage: ObjectStorage) -> Settings:
    return Settings(home=tmp_path / "home", roots=(EXAMPLES.resolve(),), snapshots=storage.url)


@pytest.fixture
def executor(settings: Settings) -> LocalExecutor:
    home = settings.home_path()
    return LocalExecutor(
        LocalWorkers(
            snapshots=settings.snapshots_location(), tokens=home / "tokens", logs=home / "logs", count=1, threads=1
        )
    )


@pytest.fixture
def dispatcher(sessions: sessionmaker[Session], settings: Settings, executor: LocalExecutor) -> Iterator[Dispatcher]:
    dispatcher = Dispatcher(sessions, executor, snapshots=settings.snapshots_location(), must_see_store=True)
    yield dispatcher
    dispatcher.context.proposals.close()
    executor.close()


def turn_until(dispatcher: Dispatcher, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + MOST_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        dispatcher.turn()


def test_a_study_resumes_from_an_object_store(
    client: TestClient,
    dispatcher: Dispatcher,
    executor: LocalExecutor,
    settings: Settings,
    storage: ObjectStorage,
    sessions: sessionmaker[Session],
) -> None:
    assert client.post("/v1/studies", json=STUDY).status_code == 201
    store = settings.snapshot_store()

    def reached() -> list[Slice]:
        with sessions() as session:
            return list(session.scalars(select(Slice).where(Slice.state == "done").order_by(Slice.id)))

    turn_until(dispatcher, lambda: len(reached()) == 2)
    (pid,) = executor.pids().values()
    secret = storage.environment["AWS_SECRET_ACCESS_KEY"].encode()
    assert secret in Path(f"/proc/{pid}/environ").read_bytes()
    assert secret not in Path(f"/proc/{pid}/cmdline").read_bytes()
    os.kill(pid, signal.SIGKILL)
    turn_until(dispatcher, lambda: client.get("/v1/studies/study").json()["state"] == "completed")

    trials = [client.get(f"/v1/studies/study/trials/{number}").json() for number in range(2)]
    winner = next(trial for trial in trials if trial["state"] == "COMPLETE")
    with sessions() as session:
        done = select(func.sum(Attempt.examples)).where(Attempt.outcome == "done", Attempt.slice_id == Slice.id)
        # Its examples were seen once: what came before the kill was read from the store.
        assert session.scalar(done.where(Slice.trial_number == winner["number"])) == 64
        assert "snapshot.discarded" not in session.scalars(select(Event.kind)).all()

    adapter = client.get(f"/v1/studies/study/trials/{winner['number']}/adapter")
    with tarfile.open(fileobj=io.BytesIO(adapter.content)) as archive:
        assert sorted(archive.getnames()) == ["adapter_config.json", "adapter_model.safetensors"]
    log = client.get(f"/v1/studies/study/trials/{winner['number']}/logs").text.splitlines()
    assert len(log) >= 8
    for file in (settings.home_path() / "logs").iterdir():
        assert secret not in file.read_bytes()
    assert read_marker(store).epoch == dispatcher.context.leadership.epoch

    assert store.look().snapshots
    assert client.delete("/v1/studies/study").status_code == 202
    turn_until(dispatcher, lambda: not store.look().snapshots)
