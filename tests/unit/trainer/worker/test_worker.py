"""The worker as a process: what goes in on stdin, what comes out on stdout, and how it dies."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trainer.snapshots.snapshot import SnapshotStore
from trainer.snapshots.stores.folder import FolderStore
from trainer.spec import (
    Outcome,
    Progress,
    Ready,
    Slice,
    SliceResult,
    SnapshotRef,
    StartSlice,
    StopSlice,
    TrialSpec,
    WorkerCommand,
    WorkerMessage,
    worker_message,
)

MakeSpec = Callable[..., TrialSpec]

NOISE = """
import os, threading, time
def chatter():
    while not os.path.sameopenfile(1, 2):  # before its streams are guarded a worker loads nothing that prints
        time.sleep(0.01)
    while True:
        print("printed by a library", flush=True)
        os.write(1, b"written by C")
        time.sleep(0.05)
threading.Thread(target=chatter, daemon=True).start()
"""


class Worker:
    """A real worker process and its two streams."""

    def __init__(self, snapshots: Path, *options: str, noise: str = "") -> None:
        start = (
            ["-c", f"{noise}\nfrom trainer.worker.__main__ import main; main()"] if noise else ["-m", "trainer.worker"]
        )
        self.errors = snapshots / f"stderr-{uuid.uuid4().hex}"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *start, "--snapshots", str(snapshots), "--threads", "1", *options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )

    def send(self, command: WorkerCommand) -> None:
        assert self.process.stdin
        self.process.stdin.write(command.model_dump_json().encode() + b"\n")
        self.process.stdin.flush()

    def receive(self) -> WorkerMessage:
        assert self.process.stdout
        return worker_message.validate_json(self.process.stdout.readline())

    def result(self, slice_: Slice | None = None) -> SliceResult:
        """The next result, after starting `slice_`."""
        if slice_ is not None:
            self.send(StartSlice(slice=slice_))
        while True:
            message = self.receive()
            if isinstance(message, SliceResult):
                return message


@contextmanager
def worker(snapshots: Path, *options: str, noise: str = "") -> Iterator[Worker]:
    started = Worker(snapshots, *options, noise=noise)
    try:
        assert isinstance(started.receive(), Ready)
        yield started
    finally:
        started.process.kill()
        started.process.wait()
        for stream in (started.process.stdin, started.process.stdout):
            if stream is not None:
                stream.close()


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("snapshots")


@pytest.fixture(scope="module")
def shared(snapshots: Path) -> Iterator[Worker]:
    """One in which something prints all the time."""
    with worker(snapshots, noise=NOISE) as started:
        yield started


@pytest.fixture(scope="module")
def small(snapshots: Path) -> Iterator[Worker]:
    """Another one on the same snapshots, with room for one idle trial."""
    with worker(snapshots, "--resident", "1") as started:
        yield started


def make_slice(spec: TrialSpec, number: int, until: int, *refs: SnapshotRef, attempt: int = 1) -> Slice:
    return Slice(
        slice_id=number,
        attempt=attempt,
        trial=spec,
        until_examples=until,
        snapshot_dir=f"s1/t{number}/{until}/{attempt}",
        snapshots=refs,
    )


def log_lines(snapshots: Path, trial: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (snapshots / "s1" / trial / "log.jsonl").read_text().splitlines()]


def test_a_slice_is_done(shared: Worker, make_spec: MakeSpec, snapshots: Path) -> None:
    result = shared.result(make_slice(make_spec(), 1, 16))
    assert (result.outcome, result.examples_seen, result.finished) == (Outcome.DONE, 16, False)
    assert result.snapshot is not None
    assert result.snapshot.path == "s1/t1/16/1/rung-16"
    state = SnapshotStore(FolderStore(snapshots)).read(result.snapshot).state
    assert state.eval_loss == result.eval_loss
    assert result.adapter_parameters == sum(weights.numel() for weights in state.adapter.values())
    assert (result.usage.examples, result.usage.steps) == (16, 2)
    assert min(result.usage.tokens, result.usage.flops, result.usage.peak_memory_bytes) > 0
    lines = log_lines(snapshots, "t1")
    assert [(line["slice"], line["attempt"], line["step"], line["examples"]) for line in lines] == [
        (1, 1, 1, 8),
        (1, 1, 2, 16),
    ]


def test_rungs_in_any_worker_equal_one_run(shared: Worker, make_spec: MakeSpec) -> None:
    """To the end at once; by rungs while resident; and by rungs, each in the middle of others, from disk."""
    spec = make_spec(lora_dropout=0.1, seed=2)
    whole = shared.result(make_slice(spec, 2, 74))
    assert whole.finished
    first = shared.result(make_slice(spec, 3, 30))
    assert first.snapshot
    resident = shared.result(make_slice(spec, 4, 74, first.snapshot))
    assert (resident.resumed_from_examples, resident.eval_loss) == (32, whole.eval_loss)
    shared.send(StartSlice(slice=make_slice(make_spec(seed=7), 5, 74)))
    shared.send(StartSlice(slice=make_slice(spec, 6, 74, first.snapshot)))
    results = {result.slice_id: result for result in (shared.result(), shared.result())}
    assert results[6].eval_loss == whole.eval_loss
    assert results[6].train_loss == whole.train_loss
    assert results[5].outcome is Outcome.DONE


def test_stop_leaves_a_snapshot_to_go_on_from(shared: Worker, make_spec: MakeSpec) -> None:
    spec = make_spec(seed=3, epochs=40.0, lora_dropout=0.1)
    slice_ = make_slice(spec, 10, 37 * 40)
    shared.send(StartSlice(slice=slice_))
    while not (isinstance(message := shared.receive(), Progress) and message.step >= 5):
        pass
    shared.send(StopSlice(slice_id=99, attempt=1))
    shared.send(StopSlice(slice_id=10, attempt=1))
    stopped = shared.result()
    assert stopped.outcome is Outcome.PREEMPTED
    assert stopped.snapshot
    assert 0 < stopped.examples_seen == stopped.snapshot.examples_seen < 37 * 40
    until = stopped.examples_seen + 40
    continued = shared.result(make_slice(spec, 11, until, stopped.snapshot))
    assert continued.resumed_from_examples == stopped.examples_seen
    assert continued.eval_loss == shared.result(make_slice(spec, 12, until)).eval_loss


def test_checkpoints_inside_a_slice_are_announced(
    shared: Worker, small: Worker, make_spec: MakeSpec, snapshots: Path
) -> None:
    spec = make_spec(seed=4, checkpoint_every_steps=3)
    shared.send(StartSlice(slice=make_slice(spec, 20, 74)))
    checkpoints, phases = [], []
    while isinstance(message := shared.receive(), Progress):
        phases.append(message.phase)
        assert (message.slowest_step_seconds > 0) is (message.phase != "starting")
        if message.checkpoint:
            checkpoints.append(message.checkpoint)
    assert isinstance(message, SliceResult)
    assert list(dict.fromkeys(phases)) == ["starting", "training", "evaluating"]
    assert [ref.path for ref in checkpoints] == [f"s1/t20/74/1/checkpoint-{n}" for n in (24, 48, 72)]
    path = snapshots / checkpoints[2].path / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    again = small.result(make_slice(spec, 20, 74, *checkpoints, attempt=2))
    assert (again.resumed_from_examples, again.discarded_snapshots) == (48, (checkpoints[2].path,))
    assert again.eval_loss == message.eval_loss


@pytest.mark.parametrize(
    ("change", "outcome", "message"),
    [
        ({"path": "/nowhere/model"}, Outcome.USER_ERROR, "/nowhere/model is not a folder"),
        ({"target_modules": "c_attn"}, Outcome.USER_ERROR, "'c_attn' is not in the model"),
        ({"train": "/nowhere.jsonl"}, Outcome.DATA_ERROR, "cannot be read"),
        ({"learning_rate": 1e30, "max_grad_norm": 1e30}, Outcome.DIVERGED, "became"),
    ],
)
def test_failures_are_results_and_the_worker_lives(
    shared: Worker, make_spec: MakeSpec, change: dict[str, object], outcome: Outcome, message: str
) -> None:
    result = shared.result(make_slice(make_spec(warmup_ratio=0.0, **change), 30, 74))
    assert result.outcome is outcome
    assert message in result.message
    assert shared.result(make_slice(make_spec(), 31, 8)).outcome is Outcome.DONE


def test_commands_that_make_no_sense_are_ignored(shared: Worker, make_spec: MakeSpec) -> None:
    assert shared.process.stdin
    shared.process.stdin.write(b'{"type": "dance"}\nnonsense\n')
    assert shared.result(make_slice(make_spec(), 40, 8)).outcome is Outcome.DONE


def test_what_libraries_print_goes_to_stderr(shared: Worker, make_spec: MakeSpec) -> None:
    assert shared.result(make_slice(make_spec(), 50, 8)).outcome is Outcome.DONE
    errors = shared.errors.read_bytes()
    assert b"printed by a library" in errors
    assert b"written by C" in errors


def test_it_dies_with_its_stdin_even_in_the_middle_of_a_slice(make_spec: MakeSpec, tmp_path: Path) -> None:
    with worker(tmp_path) as started:
        started.send(StartSlice(slice=make_slice(make_spec(epochs=1000.0), 1, 37_000)))
        while not (isinstance(message := started.receive(), Progress) and message.phase == "training"):
            pass
        os.kill(started.process.pid, signal.SIGINT)
        assert isinstance(started.receive(), Progress)
        assert started.process.stdin
        started.process.stdin.close()
        started.process.wait(timeout=2)


def test_idle_trials_leave_when_there_are_too_many(small: Worker, make_spec: MakeSpec) -> None:
    """A trial that was evicted goes on from disk with the same numbers."""
    specs = [make_spec(seed=60 + seed, lora_dropout=0.1) for seed in range(3)]
    firsts = [small.result(make_slice(spec, 60 + n, 16)).snapshot for n, spec in enumerate(specs)]
    results = [
        small.result(make_slice(spec, 70 + n, 32, first))
        for n, (spec, first) in enumerate(zip(specs, firsts, strict=True))
        if first
    ]
    assert [result.resumed_from_examples for result in results] == [16, 16, 16]
    assert small.result(make_slice(specs[0], 80, 32)).eval_loss == results[0].eval_loss
