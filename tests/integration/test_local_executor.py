"""What only the local executor does: it brings trials home, ends its processes and keeps secrets from them."""

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import psutil
import pytest

from hpo_service.executors.base import WorkerGone
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
    parent = {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "4,5", **secrets}
    env = worker_environment((1,), parent)
    assert "HPO_DATABASE_URL" not in env
    assert "AWS_SECRET" not in env
    assert env["CUDA_VISIBLE_DEVICES"] == "5"


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
