"""A real worker that is stopped in the middle of a slice: it is found out and killed, and the slice ends the same."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.settings import Settings
from hpo_service.dispatcher import local_workers, patience
from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.executors.base import ExecutorEvent, SliceProgress
from hpo_service.executors.local import LocalExecutor

EXAMPLES = Path(__file__).parents[2] / "examples"
STUDY: dict[str, Any] = {
    "metadata": {"name": "undisturbed"},
    "model": {"path": "tiny-llama"},
    "data": {
        "train": "wordnet-instruct/train.jsonl",
        "eval": "wordnet-instruct/eval.jsonl",
        "max_length": 64,
        "max_train_examples": 160,
        "max_eval_examples": 16,
    },
    "training": {"checkpoint_every_steps": 5},
    "data_checks": {"enabled": False},
    "space": {"learning_rate": {"low": 1e-4, "high": 3e-2, "log": True}, "lora_r": 4, "effective_batch": 8},
    "search": {"strategy": "none", "seed": 7, "deterministic": True},
    "budget": {"max_trials": 1},
}
FLOOR_SECONDS = 5.0
MOST_SECONDS = 240.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        home=tmp_path / "home",
        roots=(EXAMPLES.resolve(),),
        threads_per_worker=1,
        silence_floor_seconds=FLOOR_SECONDS,
        silence_step_multiple=10.0,
    )


@pytest.fixture
def executor(settings: Settings) -> LocalExecutor:
    return LocalExecutor(local_workers(settings))


@pytest.fixture
def dispatcher(sessions: sessionmaker[Session], settings: Settings, executor: LocalExecutor) -> Iterator[Dispatcher]:
    dispatcher = Dispatcher(
        sessions, executor, snapshots=settings.snapshots_location(), patience=patience(settings), must_see_store=True
    )
    yield dispatcher
    dispatcher.context.proposals.close()
    executor.close()


def test_a_stopped_worker_is_found_out_and_its_slice_ends_with_the_same_loss(
    client: TestClient, dispatcher: Dispatcher, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trial(study: str) -> dict[str, Any]:
        return dict(client.get(f"/v1/studies/{study}/trials/0").json())

    def completed(study: str) -> bool:
        return bool(client.get(f"/v1/studies/{study}").json()["state"] == "completed")

    def stop_at_a_checkpoint(timeout_seconds: float) -> Sequence[ExecutorEvent]:
        events = poll(timeout_seconds)
        if any(isinstance(event, SliceProgress) and event.progress.checkpoint for event in events) and not stopped:
            stopped.extend(executor.pids().values())
            os.kill(stopped[0], signal.SIGSTOP)
        return events

    stopped: list[int] = []
    poll = executor.poll
    assert client.post("/v1/studies", json=STUDY).status_code == 201
    turn_until(dispatcher, lambda: completed("undisturbed"))
    assert client.post("/v1/studies", json={**STUDY, "metadata": {"name": "stopped"}}).status_code == 201
    monkeypatch.setattr(executor, "poll", stop_at_a_checkpoint)
    turn_until(dispatcher, lambda: completed("stopped"))
    assert len(stopped) == 1
    assert not psutil.pid_exists(stopped[0])

    lost, done = trial("stopped")["history"]
    assert (lost["outcome"], lost["cause"]) == ("lost", "no_progress")
    assert "made no progress" in lost["message"]
    assert "training at" in lost["message"]
    assert (done["outcome"], done["worker"] != lost["worker"]) == ("done", True)
    assert 0 < done["examples"] < 160, "it went on from a checkpoint"
    assert trial("stopped")["loss"] == trial("undisturbed")["loss"]
    assert [attempt["outcome"] for attempt in trial("undisturbed")["history"]] == ["done"]


def turn_until(dispatcher: Dispatcher, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + MOST_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        dispatcher.turn()
