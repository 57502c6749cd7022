"""A child process and, where it does not see to that itself, what it started."""

import os
import time
from pathlib import Path

import psutil
import pytest

from hpo_service.core import child_process
from hpo_service.core.child_process import Child
from hpo_service.core.errors import SetupError


def started(tmp_path: Path, descriptor: int) -> tuple[Child, psutil.Process]:
    """A child that has started a process, and that process."""
    log = tmp_path / "child.log"
    child = Child("child", ["sh", "-c", "sleep 600 & echo $!; wait"], os.environ, log, descriptor, whole_group=True)
    child.start()
    deadline = time.monotonic() + 20
    while not (log.exists() and log.read_text().endswith("\n")) and time.monotonic() < deadline:
        time.sleep(0.02)
    return child, psutil.Process(int(log.read_text().splitlines()[-1]))


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_group_is_stopped_whole(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    child, below = started(tmp_path, descriptor)
    child.ask_to_stop()
    child.wait_stopped(10)
    assert gone(below)
    os.close(descriptor)


def test_what_a_dead_child_left_ends_before_it_is_started_again(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    child, below = started(tmp_path, descriptor)
    said = list[str]()
    assert child.pid is not None
    psutil.Process(child.pid).kill()
    deadline = time.monotonic() + 20
    while not said and time.monotonic() < deadline:
        child.check(said.append)
        time.sleep(0.02)
    assert "SIGKILL" in said[0]
    assert gone(below)
    child.wait_stopped(1)
    os.close(descriptor)


def test_a_child_that_is_given_up_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "MAX_QUICK_DEATHS", 1)
    descriptor = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    child, below = started(tmp_path, descriptor)
    assert child.pid is not None
    leader = psutil.Process(child.pid)
    leader.kill()
    deadline = time.monotonic() + 20
    while not gone(leader) and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(SetupError, match="right after its start"):
        child.check(print)
    assert gone(below)
    os.close(descriptor)
