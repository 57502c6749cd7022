"""What only the local executor does: it brings trials home, ends its processes and keeps secrets from them."""

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import psutil
import pytest

from hpo_service.core.study_rules import Cause
from hpo_service.dispatcher.workers.progress_timeouts import Liveness, Patience, Standstill
from hpo_service.executors.base import WorkerGone, WorkerReady
from hpo_service.executors.local import LocalExecutor, LocalWorkers
from hpo_service.executors.worker_process import worker_environment
from tests.slices import a_slice, ended, submit, wait_for, wait_ready


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(mkdtemp(prefix="executor-"))
    yield path
    shutil.rmtree(path)


def test_the_next_slice_of_a_trial_goes_to_the_worker_that_holds_it(folder: Path) -> None:
    config = LocalWorkers(
        snapshots=folder / "snapshots", tokens=folder / "tokens", logs=folder / "logs", count=2, threads=1
    )
    executor = LocalExecutor(config)
    executor.start()
    wait_ready(executor, 2)
    for trial in (21, 22):
        submit(executor, a_slice(trial=trial))
    wait_for(executor, lambda seen: len(ended(seen)) == 2)
    homes = {trial: executor.choose(a_slice(trial=trial), prefetch=False) for trial in (21, 22)}
    assert len(set(homes.values())) == 2
    pids = executor.pids().values()
    executor.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_worker_gets_no_secret() -> None:
    secrets = {"HPO_DATABASE_URL": "postgresql://u:p@h/d", "AWS_SECRET": "x"}
    env = worker_environment((1,), {"PATH": "/bin", **secrets})
    assert "HPO_DATABASE_URL" not in env
    assert "AWS_SECRET" not in env


LEAKING_WORKER = """
import sys, time
from trainer.spec import Notice, Outcome, Ready, SliceResult, StartSlice, worker_command
print(Ready(pid=1, device="d", software={}).model_dump_json(), flush=True)
for line in sys.stdin:
    command = worker_command.validate_json(line)
    token = {"slice_id": command.slice.slice_id, "attempt": command.slice.attempt}
    grew = Notice(kind="memory_growth")
    result = SliceResult(**token, outcome=Outcome.PREEMPTED, examples_seen=0, notices=(grew,))
    print(result.model_dump_json(), flush=True)
    time.sleep(0.5)
    sys.exit(75)
"""


def test_a_worker_that_leaks_is_replaced_at_once_and_is_no_crash(folder: Path) -> None:
    """Again and again, without the growing delay of a worker that crashes; meanwhile it is given nothing."""
    config = LocalWorkers(
        snapshots=folder, tokens=folder, logs=folder, count=1, threads=1, command=(sys.executable, "-c", LEAKING_WORKER)
    )
    executor = LocalExecutor(config)
    executor.start()
    try:
        for _ in range(4):
            wait_ready(executor, 1)
            submit(executor, a_slice())
            wait_for(executor, lambda seen: len(ended(seen)) == 1)
            assert executor.free_slots(prefetch=True) == 0
            before = time.monotonic()
            (gone,) = (
                event
                for event in wait_for(executor, lambda seen: any(isinstance(event, WorkerGone) for event in seen))
                if isinstance(event, WorkerGone)
            )
            assert gone.replaced
            assert "a fresh one replaces it" in gone.reason
            assert time.monotonic() - before < 5
        assert not executor._deaths
    finally:
        executor.close()


STUCK_GROUP = """
import os, signal, subprocess, sys
from trainer.spec import Progress, Ready, worker_command
other = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
print(Ready(pid=other.pid, device="d", software={}).model_dump_json(), flush=True)
for line in sys.stdin:
    command = worker_command.validate_json(line)
    numbers = dict(examples_seen=8, step=1, train_loss=None, tokens_per_second=1.0, memory_bytes=1)
    print(Progress(slice_id=command.slice.slice_id, attempt=1, **numbers).model_dump_json(), flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_a_worker_that_is_stopped_is_missed_and_killed_with_its_other_ranks(folder: Path) -> None:
    """Nothing in it can say so: its signs of life are missed. A job or a rank of it must not outlive it."""
    config = LocalWorkers(
        snapshots=folder, tokens=folder, logs=folder, count=1, threads=1, command=(sys.executable, "-c", STUCK_GROUP)
    )
    executor, liveness = LocalExecutor(config), Liveness(Patience(floor_seconds=1.0))
    executor.start()
    try:
        (ready,) = wait_ready(executor, 1)
        assert isinstance(ready, WorkerReady)
        processes = [psutil.Process(pid) for pid in (executor.pids()[ready.worker], ready.ready.pid)]
        work = a_slice()
        submit(executor, work)
        found: list[Standstill] = []
        while not found:
            liveness.hear(executor.poll(0.1))
            found = liveness.look({ready.worker: [work.token]}, ())
        assert "training slice" in found[0].reason
        executor.kill(ready.worker, found[0].reason, Cause.NO_PROGRESS)
        seen = wait_for(executor, lambda seen: any(isinstance(event, WorkerGone) for event in seen))
        assert [(event.reason, event.cause) for event in seen if isinstance(event, WorkerGone)] == [
            (found[0].reason, Cause.NO_PROGRESS)
        ]
        assert not psutil.wait_procs(processes, timeout=5)[1]
        wait_ready(executor, 1)
    finally:
        executor.close()
