"""What every executor promises, whatever it runs on. The local one runs the real worker on the real small model."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Protocol

import psutil
import pytest

from hpo_service.executors.base import Executor, ExecutorEvent, SliceEnded, WorkerGone, WorkerReady
from hpo_service.executors.fake import FakeExecutor
from hpo_service.executors.local import LocalExecutor, LocalWorkers
from trainer.spec import DataSpec, ModelSpec, Outcome, Parameters, Slice, SliceResult, TrainingSettings, TrialSpec

EXAMPLES = Path(__file__).parents[2] / "examples"
TIMEOUT_SECONDS = 90.0


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
    wait_for(rig.executor, lambda seen: sum(isinstance(event, WorkerReady) for event in seen) == 2)
    yield rig
    rig.executor.close()


@pytest.fixture(autouse=True)
def both_workers_are_ready(rig: Rig) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while rig.executor.free_slots(prefetch=False) < 2 and time.monotonic() < deadline:
        rig.executor.poll(0.05)
    assert rig.executor.free_slots(prefetch=False) == 2


def wait_for(executor: Executor, enough: Callable[[Sequence[ExecutorEvent]], bool]) -> list[ExecutorEvent]:
    seen: list[ExecutorEvent] = []
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not enough(seen):
        assert time.monotonic() < deadline, f"only {seen}"
        seen.extend(executor.poll(0.05))
    return seen


def ended(seen: Sequence[ExecutorEvent]) -> list[SliceResult]:
    return [event.result for event in seen if isinstance(event, SliceEnded)]


_ids = iter(range(1, 10_000))


def a_slice(*, trial: int = 1, until: int = 16, epochs: float = 1.0, attempt: int = 1) -> Slice:
    slice_id = next(_ids)
    return Slice(
        slice_id=slice_id,
        attempt=attempt,
        trial=TrialSpec(
            model=ModelSpec(path=str(EXAMPLES / "tiny-llama")),
            data=DataSpec(
                train=str(EXAMPLES / "wordnet-instruct" / "train.jsonl"),
                eval=str(EXAMPLES / "wordnet-instruct" / "eval.jsonl"),
                max_length=96,
                max_train_examples=64,
                max_eval_examples=16,
            ),
            parameters=Parameters(learning_rate=1e-3, lora_r=4, effective_batch=8, epochs=epochs),
            training=TrainingSettings(seed=1),
        ),
        until_examples=until,
        snapshot_dir=f"1/{trial}/{until}/{slice_id}",
    )


def long_slice(trial: int = 9) -> Slice:
    return a_slice(trial=trial, until=64 * 500, epochs=500)


def submit(rig: Rig, work: Slice) -> str:
    worker = rig.executor.choose(work, prefetch=False)
    assert worker is not None
    rig.executor.submit(work, worker)
    return worker


def hold(rig: Rig, held: bool) -> None:
    if isinstance(rig, FakeRig):
        rig.fake.hold = held


def test_a_slice_ends_once_with_its_token(rig: Rig) -> None:
    work = a_slice()
    submit(rig, work)
    seen = wait_for(rig.executor, lambda seen: bool(ended(seen)))
    (result,) = ended(seen)
    assert (result.slice_id, result.attempt) == work.token
    assert result.outcome is Outcome.DONE
    assert result.eval_loss is not None
    assert result.snapshot is not None
    assert result.snapshot.path == work.snapshot_dir
    assert not ended(list(rig.executor.poll(0.2)))


def test_slots_are_taken_and_given_back(rig: Rig) -> None:
    hold(rig, True)
    first, second = long_slice(1), long_slice(2)
    assert submit(rig, first) != submit(rig, second)
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
    submit(rig, work)
    rig.executor.stop_slice(work.token)
    (result,) = ended(wait_for(rig.executor, lambda seen: bool(ended(seen))))
    assert result.outcome is Outcome.PREEMPTED
    hold(rig, False)


def test_a_queued_slice_is_preempted_without_having_begun(rig: Rig) -> None:
    hold(rig, True)
    running = [long_slice(1), long_slice(2)]
    for work in running:
        submit(rig, work)
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
    worker = submit(rig, work)
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


def test_the_next_slice_of_a_trial_goes_to_the_worker_that_holds_it(folder: Path) -> None:
    rig = LocalRig(folder)
    rig.executor.start()
    wait_for(rig.executor, lambda seen: sum(isinstance(event, WorkerReady) for event in seen) == 2)
    for trial in (21, 22):
        submit(rig, a_slice(trial=trial))
    wait_for(rig.executor, lambda seen: len(ended(seen)) == 2)
    homes = {trial: rig.executor.choose(a_slice(trial=trial), prefetch=False) for trial in (21, 22)}
    assert len(set(homes.values())) == 2
    pids = rig.local.pids().values()
    rig.executor.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_worker_gets_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    from hpo_service.executors.worker_process import worker_environment

    secrets = {"HPO_DATABASE_URL": "postgresql://u:p@h/d", "AWS_SECRET": "x"}
    parent = {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "4,5", **secrets}
    env = worker_environment(1, parent)
    assert "HPO_DATABASE_URL" not in env
    assert "AWS_SECRET" not in env
    assert env["CUDA_VISIBLE_DEVICES"] == "5"
