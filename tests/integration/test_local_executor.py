"""What only the local executor does: it brings trials home, ends its processes and keeps secrets from them."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import psutil
import pytest

from hpo_service.executors.local import LocalExecutor, LocalWorkers
from hpo_service.executors.worker_process import worker_environment
from tests.slices import a_slice, ended, submit, wait_for, wait_ready


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(mkdtemp(prefix="executor-"))
    yield path
    shutil.rmtree(path)


def test_the_next_slice_of_a_trial_goes_to_the_worker_that_holds_it(folder: Path) -> None:
    config = LocalWorkers(snapshots=folder / "snapshots", logs=folder / "logs", count=2, threads=1)
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
    env = worker_environment(1, parent)
    assert "HPO_DATABASE_URL" not in env
    assert "AWS_SECRET" not in env
    assert env["CUDA_VISIBLE_DEVICES"] == "5"
