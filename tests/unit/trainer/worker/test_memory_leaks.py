"""Growth from slice to slice is a leak; caches that fill and slices that need more are none."""

import logging
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import torch
from pydantic import BaseModel as Message

import trainer.worker.memory_leaks
from trainer.data.token_cache import TokenCache
from trainer.snapshots.snapshot import SnapshotStore
from trainer.snapshots.stores.folder import FolderStore
from trainer.spec import Notice, Outcome, Slice, SliceResult, StartSlice, TrialSpec, WorkerCommand
from trainer.worker import loop as turns
from trainer.worker.memory_leaks import LeakWatch
from trainer.worker.resident_trials import Residents

MakeSpec = Callable[..., TrialSpec]
MEBIBYTE = 2**20
CPU = torch.device("cpu")


def readings(monkeypatch: pytest.MonkeyPatch, mebibytes: list[float], margin: float = 10) -> list[Notice]:
    watch, notices = LeakWatch(CPU, int(margin * MEBIBYTE)), []
    for reading in mebibytes:
        monkeypatch.setattr(
            trainer.worker.memory_leaks, "private_memory_bytes", lambda reading=reading: int(reading * MEBIBYTE)
        )
        notices.append(watch.read(0))
    return [notice for notice in notices if notice is not None]


def test_steady_growth_is_a_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    notices = readings(monkeypatch, [500.0 + 5 * number for number in range(15)])
    assert len(notices) == 1
    assert notices[0].kind == "memory_growth"
    assert notices[0].values["growth_bytes"] == 25 * MEBIBYTE


@pytest.mark.parametrize(
    "mebibytes",
    [
        [500.0 + 100 * number for number in range(5)] + [1000.0] * 20,  # warming up
        [500.0] * 10 + [900.0] * 20,  # a cache that filled
        [500.0, 700.0, 900.0] * 10,  # slices that need more now and then
        [500.0 + number for number in range(30)],  # below the margin
    ],
)
def test_other_growth_is_none(monkeypatch: pytest.MonkeyPatch, mebibytes: list[float]) -> None:
    assert not readings(monkeypatch, mebibytes)


def test_what_is_known_to_be_in_use_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = LeakWatch(CPU, 10 * MEBIBYTE)
    for number in range(20):
        monkeypatch.setattr(
            trainer.worker.memory_leaks, "private_memory_bytes", lambda number=number: (500 + 50 * number) * MEBIBYTE
        )
        assert watch.read(50 * number * MEBIBYTE) is None


def a_slice(spec: TrialSpec, number: int, until: int) -> Slice:
    folder = f"1/{number}/{until}/1"
    return Slice(slice_id=number, attempt=1, trial=spec, until_examples=until, snapshot_dir=folder)


class Recycled(Exception):
    """Stands in for the end of the process."""


def test_a_worker_that_leaks_hands_back_its_slices_and_ends(
    make_spec: MakeSpec,
    token_cache: TokenCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A real leak: 8 MiB that stay with every slice, as from a hook that keeps tensors."""
    kept: list[torch.Tensor] = []
    monkeypatch.setattr(Residents, "enter", _leaking(Residents.enter, kept))
    residents = Residents(CPU, 1, token_cache, leaks=LeakWatch(CPU, 12 * MEBIBYTE))
    statuses: list[int] = []

    def leave(status: int) -> None:
        statuses.append(status)
        raise Recycled

    monkeypatch.setattr("os._exit", leave)
    caplog.set_level(logging.INFO, "trainer.worker")
    results: list[SliceResult] = []
    commands: Queue[WorkerCommand] = Queue()

    def start(number: int) -> None:
        until = 74 if number % 2 else 8
        commands.put(StartSlice(slice=a_slice(make_spec(seed=number), number, until)))

    def hear(message: Message) -> None:
        if isinstance(message, SliceResult):
            results.append(message)
            assert len(results) < 40
            if message.outcome is Outcome.DONE:
                start(len(results) + 1)

    start(0)
    start(1)
    with pytest.raises(Recycled):
        turns.serve(str(tmp_path), residents, commands, hear)
    assert statuses == [turns.RECYCLE]
    told = next(notice for result in results for notice in result.notices if notice.kind == "memory_growth")
    assert told.values["growth_bytes"] > 12 * MEBIBYTE
    outcomes = [result.outcome for result in results]
    assert outcomes.index(Outcome.PREEMPTED) >= 15
    assert set(outcomes[outcomes.index(Outcome.PREEMPTED) :]) == {Outcome.PREEMPTED}
    store = SnapshotStore(FolderStore(tmp_path))
    stopped = [result for result in results if result.outcome is Outcome.PREEMPTED and result.snapshot is not None]
    assert [store.read(result.snapshot).state.examples_seen for result in stopped if result.snapshot] == [
        result.examples_seen for result in stopped
    ]
    recorded = sum("bytes of memory are in use" in record.message for record in caplog.records)
    assert recorded == len(outcomes) - sum(result.snapshot is None for result in results)


def _leaking(enter: Callable[..., None], kept: list[torch.Tensor]) -> Callable[..., None]:
    def leak(residents: Residents, trial: Any) -> None:
        kept.append(torch.ones(8 * MEBIBYTE // 4))
        enter(residents, trial)

    return leak
