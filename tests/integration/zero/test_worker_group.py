"""A worker of two ranks as a process: slices, a stop, the death of a rank."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from trainer.distributed.worker_group import RANK_LOST
from trainer.snapshots.snapshot import SnapshotStore
from trainer.snapshots.stores.folder import FolderStore
from trainer.spec import (
    Outcome,
    Progress,
    Ready,
    Slice,
    SliceResult,
    StartSlice,
    StopSlice,
    TrialSpec,
    WorkerCommand,
    WorkerMessage,
    worker_message,
)

MakeSpec = Callable[..., TrialSpec]
ROOM = {"max_lora_r": 8, "target_modules": "all-linear"}


class Group:
    """A real worker of two ranks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "worker.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "trainer.worker", "--snapshots", folder / "snapshots", "--ranks", "2"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        assert isinstance(ready := self.receive(), Ready), self.log.read_text()
        assert ready.ranks == 2
        self.children = psutil.Process(self.process.pid).children()

    def send(self, command: WorkerCommand) -> None:
        assert self.process.stdin
        self.process.stdin.write(command.model_dump_json().encode() + b"\n")
        self.process.stdin.flush()

    def receive(self) -> WorkerMessage:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.log.read_text()[-4000:]
        return worker_message.validate_json(line)

    def until_result(self) -> tuple[list[Progress], SliceResult]:
        said = []
        while isinstance(message := self.receive(), Progress):
            said.append(message)
        assert isinstance(message, SliceResult)
        return said, message


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    started = Group(tmp_path_factory.mktemp("group"))
    yield started
    started.process.kill()


def piece(spec: TrialSpec, number: int, until: int, **values: object) -> Slice:
    return Slice(slice_id=number, attempt=1, trial=spec, until_examples=until, snapshot_dir=f"1/2/{number}", **values)


def test_slices_of_a_group(group: Group, make_spec: MakeSpec) -> None:
    """Rungs, a snapshot that goes on, a stop, and a trial that cannot be; then a rank dies and takes all with it."""
    spec = make_spec(ranks=2, lora_dropout=0.1, zero=ROOM, checkpoint_every_seconds=0.01)
    group.send(StartSlice(slice=piece(spec, 1, 16)))
    said, first = group.until_result()
    assert (first.outcome, first.examples_seen, first.usage.devices) == (Outcome.DONE, 16, 2), first.message
    assert any(progress.checkpoint for progress in said)
    assert first.snapshot is not None
    state = SnapshotStore(FolderStore(group.folder / "snapshots")).read(first.snapshot).state
    assert state.step == 2
    assert len(state.optimizer) == 2 * len(state.adapter) > 0

    group.send(StartSlice(slice=piece(spec, 2, 24, snapshots=(first.snapshot,))))
    _, second = group.until_result()
    assert (second.outcome, second.resumed_from_examples, second.examples_seen) == (Outcome.DONE, 16, 24)

    other = make_spec(ranks=2, seed=1, lora_r=8, epochs=50.0, zero=ROOM)
    group.send(StartSlice(slice=piece(other, 3, 1000)))
    assert isinstance(group.receive(), Progress)
    group.send(StopSlice(slice_id=3, attempt=1))
    _, third = group.until_result()
    assert third.outcome is Outcome.PREEMPTED
    assert third.snapshot is not None

    group.send(StartSlice(slice=piece(make_spec(ranks=2, lora_r=16, zero=ROOM), 4, 8)))
    _, fourth = group.until_result()
    assert fourth.outcome is Outcome.USER_ERROR
    assert "lora_r 16 is above training.zero.max_lora_r 8" in fourth.message
    group.send(StartSlice(slice=piece(make_spec(), 5, 8)))
    _, fifth = group.until_result()
    assert fifth.outcome is Outcome.USER_ERROR
    assert "for 1 ranks and this worker group has 2" in fifth.message

    group.send(StartSlice(slice=piece(other, 6, 1000, snapshots=(third.snapshot,))))
    assert isinstance(group.receive(), Progress)
    (rank,) = group.children
    rank.send_signal(signal.SIGKILL)
    _, lost = group.until_result()
    assert lost.outcome is Outcome.INFRA_ERROR
    assert "rank 1 of the worker group ended with signal 9" in lost.message
    assert group.process.wait(timeout=30) == RANK_LOST


def test_the_end_of_stdin_ends_all(tmp_path: Path) -> None:
    group = Group(tmp_path)
    assert group.process.stdin
    group.process.stdin.close()
    assert group.process.wait(timeout=10) == 0
    _, alive = psutil.wait_procs(group.children, timeout=10)
    assert not alive
