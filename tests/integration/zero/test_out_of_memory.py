"""Memory that runs out on one of two real ranks: the group ends, and the slice goes on with half on a fresh one."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.settings import Settings
from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.executors.local import LocalExecutor, LocalWorkers
from hpo_service.storage.tables import Attempt, Slice
from tests import serving
from tests.dispatching import events_of
from tests.integration.test_hung_worker import STUDY, turn_until
from tests.invariants import broken

EXAMPLES = Path(__file__).parents[3] / "examples"
HOOK = Path(__file__).with_name("short_of_memory.py")
ROOT = Path(__file__).parents[3]
PAIRS: dict[str, Any] = STUDY | {
    "metadata": {"name": "pairs"},
    "data": STUDY["data"] | {"max_train_examples": 32, "max_eval_examples": 8},
    "training": {"micro_batch": 4, "checkpoint_every_steps": 2},
    "space": STUDY["space"] | {"lora_dropout": 0.1},
    "resources": {"gpus_per_trial": 2},
}
Start = Callable[[int, int], tuple[Dispatcher, LocalExecutor]]


@pytest.fixture
def start(sessions: sessionmaker[Session], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """A dispatcher whose groups of two have, on one rank, memory for so many examples at once."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    running: list[tuple[Dispatcher, LocalExecutor]] = []

    def begin(most: int, rank: int) -> tuple[Dispatcher, LocalExecutor]:
        workers = LocalWorkers(
            snapshots=tmp_path / "snapshots",
            tokens=tmp_path / "tokens",
            logs=tmp_path / "logs",
            count=2,
            threads=1,
            command=(sys.executable, str(HOOK), str(most), str(rank)),
        )
        executor = LocalExecutor(workers)
        running.append((Dispatcher(sessions, executor, snapshots=tmp_path / "snapshots"), executor))
        return running[-1]

    yield begin
    for dispatcher, executor in running:
        dispatcher.context.proposals.close()
        executor.close()


def test_a_slice_goes_on_with_half_the_micro_batch(
    engine: Engine, sessions: sessionmaker[Session], start: Start, tmp_path: Path
) -> None:
    client = serving.serve(engine, Settings(home=tmp_path / "home", roots=(EXAMPLES.resolve(),)))
    client.headers.update(serving.bearer(serving.make_key(sessions)))
    assert client.post("/v1/studies", json=PAIRS).status_code == 201
    dispatcher, _ = start(2, 1)
    ends(client, dispatcher, "pairs")
    (piece, halved), (lost, done) = trial(client, "pairs"), history(client, "pairs")
    assert (lost["outcome"], lost["micro_batch"], lost["cause"]) == ("oom", 4, None)
    assert "rank 1 of the worker group ran out of memory; with micro-batch 4" in lost["message"]
    assert (done["outcome"], done["micro_batch"], done["worker"] != lost["worker"]) == ("done", 2, True)
    assert piece["failures"] == 0
    assert lost["estimated"]
    assert lost["seconds"] > 0

    # The same group goes on with a trial that never took more than that at once.
    small = PAIRS | {"metadata": {"name": "small"}, "training": PAIRS["training"] | {"micro_batch": 2}}
    assert client.post("/v1/studies", json=small).status_code == 201
    ends(client, dispatcher, "small")
    _, plain = trial(client, "small")
    assert [one["outcome"] for one in history(client, "small")] == ["done"]
    assert halved["loss"] == plain["loss"]
    with sessions() as session:
        assert broken(session, settled=True) == []
        notices = [
            event.payload
            for event in events_of(sessions, session.scalars(select(Slice.study_id).order_by(Slice.id)).first() or 0)
        ]
        workers = set(session.scalars(select(Attempt.worker_id)))
    (notice,) = [payload for payload in notices if payload.get("kind") == "oom_halved"]
    assert "the slice is tried again with 2 at the same effective batch" in notice["message"]
    assert len(workers) == 2


def ends(client: Any, dispatcher: Dispatcher, study: str) -> None:
    turn_until(dispatcher, lambda: bool(client.get(f"/v1/studies/{study}").json()["state"] == "completed"))


def history(client: Any, study: str) -> list[dict[str, Any]]:
    return list(client.get(f"/v1/studies/{study}/trials/0").json()["history"])


def trial(client: Any, study: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(its slice, it)."""
    (piece,) = client.get(f"/v1/studies/{study}/slices").json()["items"]
    return piece, client.get(f"/v1/studies/{study}/trials/0").json()
