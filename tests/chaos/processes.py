"""Processes of the service, forked from this one, so that they start at once with everything imported.

Fork only where no thread runs. A process is a leader of its own session and dies with its parent.
"""

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from trainer.common import failpoints

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.01


class Forked:
    """A child process."""

    def __init__(self, name: str, pid: int) -> None:
        self.name = name
        self.pid = pid
        self._status: int | None = None

    def send(self, sign: signal.Signals) -> None:
        """A signal; one that has ended gets none."""
        if self.status() is None:
            os.kill(self.pid, sign)

    def kill(self) -> None:
        """End it now, and wait for that."""
        self.send(signal.SIGKILL)
        self.wait(10.0)

    def status(self) -> int | None:
        """Exit status, minus the signal's number if one ended it; None while it lives."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status

    def wait(self, seconds: float) -> int:
        """The exit status once it has ended."""
        deadline = time.monotonic() + seconds
        while (status := self.status()) is None:
            assert time.monotonic() < deadline, f"{self.name} (pid {self.pid}) still lives after {seconds:g} s"
            time.sleep(_POLL_SECONDS)
        return status


def fork(name: str, run: Callable[[], None], log: Path, environment: Mapping[str, str]) -> Forked:
    """Start a process that does `run` and says what it has to say in `log`; `environment` is added to ours."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return Forked(name, pid)
    status = 1
    try:
        _settle_in(parent, log, environment)
        run()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _settle_in(parent: int, log: Path, environment: Mapping[str, str]) -> None:
    os.setsid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(sign, signal.SIG_DFL)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, target)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    os.environ.update(environment)
    failpoints.arm(os.environ.get(failpoints.VARIABLE, ""))
