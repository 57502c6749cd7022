"""What every executor promises, whatever it runs on. The local one runs the real worker on the real small model."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Protocol

import pytest

from hpo_service.executors.base import Executor, WorkerGone, WorkerReady
from hpo_service.executors.fake import FakeExecutor
from hpo_service.executors.local import LocalExecutor, LocalWorkers
from tests.slices import TIMEOUT_SECONDS, a_slice, ended, long_slice, submit, wait_for, wait_ready
from trainer.spec import Outcome


class Rig(Protocol):
    """An executor under test with what the tests need to do to it."""

    executor: Executor

    def kill(self, worker: str) -> None: ...


class FakeRig:
    """Slices are held until the test lets them go, as a slice of the real worker takes its time."""

    def __init__(self) -> None:
        self.fake = FakeExecutor(lambda _: 2.0, workers=2)
        self.executor: Executor = self.fake

    def kill(self, worker: str) -> None:
        self.fake.kill(worker)


class LocalRig:
    """Two real workers."""

    def __init__(self, folder: Path) -> None:
        config = LocalWorkers(snapshots=folder / "snapshots", logs=folder / "logs", count=2, threads=1)
        self.local = LocalExecutor(config)
        self.executor: Executor = self.local

    def kill(self, worker: str) -> None:
        os.kill(self.local.pids()[worker], signal.SIGKILL)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    path = Path(mkdtemp(prefix="executor-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module", params=["fake", "local"])
def rig(request: pytest.FixtureRequest, folder: Path) -> Iterator[Rig]:
    rig: Rig = FakeRig() if request.param == "fake" else LocalRig(folder)
    rig.executor.start()
    wait_ready(rig.executor, 2)
    yield rig
    rig.executor.close()


@pytest.fixture(autouse=True)
def both_workers_are_ready(rig: Rig) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while rig.executor.free_slots(prefetch=False) < 2 and time.monotonic() < deadline:
        rig.executor.poll(0.05)
    assert rig.executor.free_slots(prefetch=False) == 2


def hold(rig: Rig, held: bool) -> None:
    if isinstance(rig, FakeRig):
        rig.fake.hold = held


def test_a_slice_ends_once_with_its_token(rig: Rig) -> None:
    work = a_slice()
    submit(rig.executor, work)
    seen = wait_for(rig.executor, lambda seen: bool(ended(seen)))
    (result,) = ended(seen)
    assert (result.slice_id, result.attempt) == work.token
    assert result.outcome is Outcome.DONE
    assert result.eval_loss is not None
    assert result.snapshot is not None
    assert result.snapshot.path.startswith(work.snapshot_dir)
    assert not ended(list(rig.executor.poll(0.2)))


def test_slots_are_taken_and_given_back(rig: Rig) -> None:
    hold(rig, True)
    first, second = long_slice(1), long_slice(2)
    assert submit(rig.executor, first) != submit(rig.executor, second)
    assert rig.executor.free_slots(prefetch=False) == 0
    assert rig.executor.choose(a_slice(), prefetch=False) is None
    assert rig.executor.free_slots(prefetch=True) == 2
    for work in (first, second):
        rig.executor.stop_slice(work.token)
    wait_for(rig.executor, lambda seen: len(ended(seen)) == 2)
    assert rig.executor.free_slots(prefetch=False) == 2
    hold(rig, False)


def test_a_stopped_slice_is_preempted_with_what_it_reached(rig: Rig) -> None:
    hold(rig, True)
    work = long_slice()
    submit(rig.executor, work)
    rig.executor.stop_slice(work.token)
    (result,) = ended(wait_for(rig.executor, lambda seen: bool(ended(seen))))
    assert result.outcome is Outcome.PREEMPTED
    hold(rig, False)


def test_a_queued_slice_is_preempted_without_having_begun(rig: Rig) -> None:
    hold(rig, True)
    running = [long_slice(1), long_slice(2)]
    for work in running:
        submit(rig.executor, work)
    queued = a_slice(trial=3)
    worker = rig.executor.choose(queued, prefetch=True)
    assert worker is not None
    rig.executor.submit(queued, worker)
    rig.executor.stop_slice(queued.token)
    (result,) = ended(wait_for(rig.executor, lambda seen: bool(ended(seen))))
    assert (result.slice_id, result.outcome, result.examples_seen) == (queued.slice_id, Outcome.PREEMPTED, 0)
    for work in running:
        rig.executor.stop_slice(work.token)
    wait_for(rig.executor, lambda seen: len(ended(seen)) == 2)
    hold(rig, False)


def test_stopping_an_unknown_token_is_ignored(rig: Rig) -> None:
    rig.executor.stop_slice((999_999, 1))
    assert list(rig.executor.poll(0.1)) == []


def test_a_dead_worker_is_reported_and_replaced(rig: Rig) -> None:
    hold(rig, True)
    work = long_slice()
    worker = submit(rig.executor, work)
    rig.kill(worker)
    seen = wait_for(
        rig.executor,
        lambda seen: (
            any(isinstance(event, WorkerGone) for event in seen)
            and any(isinstance(event, WorkerReady) for event in seen)
        ),
    )
    assert [event.worker for event in seen if isinstance(event, WorkerGone)] == [worker]
    assert ended(seen) == []
    assert worker not in [event.worker for event in seen if isinstance(event, WorkerReady)]
    hold(rig, False)


def test_wake_ends_a_wait(rig: Rig) -> None:
    rig.executor.wake()
    began = time.monotonic()
    rig.executor.poll(10.0)
    assert time.monotonic() - began < 5.0
