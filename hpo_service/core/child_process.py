"""A child process that is started again when it dies and that does not outlive its parent."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from hpo_service.core.errors import SetupError

QUICK_DEATH_SECONDS = 10.0
MAX_QUICK_DEATHS = 6
_FIRST_DELAY_SECONDS = 0.2
_LOG_TAIL_BYTES = 2000
_LAST_RESORT_SECONDS = 20.0
_GROUP_STOP_SECONDS = 5.0
_MAX_LOG_BYTES = 20_000_000


class Child:
    """One supervised process. Its standard input is a pipe that ends when this process does.

    `descriptor` is inherited by the process, so that whoever locks the file behind it knows that it lives. With
    `whole_group` the processes that it started end with it, for such as do not see to that themselves.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        descriptor: int,
        *,
        whole_group: bool = False,
    ) -> None:
        self.name = name
        self._command = tuple(command)
        self._environment = dict(environment)
        self._log = log
        self._descriptor = descriptor
        self._whole_group = whole_group
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._quick_deaths = 0
        self._start_at = 0.0

    @property
    def pid(self) -> int | None:
        """The running process, None between two lives."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process; its output goes to the log."""
        if self._log.exists() and self._log.stat().st_size > _MAX_LOG_BYTES:
            self._log.replace(self._log.with_suffix(".old.log"))
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                pass_fds=(self._descriptor,),
                start_new_session=True,
            )
        self._started = time.monotonic()

    def check(self, say: Callable[[str], None]) -> None:
        """Start the process again if it died, later after every quick death.

        Raises:
            SetupError: it keeps dying right after its start.
        """
        if self._process is None:
            if time.monotonic() >= self._start_at:
                self.start()
            return
        status = self._process.poll()
        if status is None:
            return
        self._close()
        lived = time.monotonic() - self._started
        self._quick_deaths = self._quick_deaths + 1 if lived < QUICK_DEATH_SECONDS else 0
        if self._quick_deaths >= MAX_QUICK_DEATHS:
            raise SetupError(
                f"The {self.name} ended {self._quick_deaths} times right after its start ({describe(status)}). "
                f"The end of {self._log}:\n{self.log_tail()}"
            )
        say(f"The {self.name} ended ({describe(status)}); starting it again.")
        self._start_at = time.monotonic() + _FIRST_DELAY_SECONDS * 2**self._quick_deaths

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        if self._process and self._process.poll() is None:
            if self._whole_group:
                os.killpg(self._process.pid, signal.SIGTERM)
            else:
                self._process.terminate()

    def wait_stopped(self, timeout_seconds: float) -> None:
        """Wait for the end; kill what has not ended by then."""
        if self._process is None:
            return
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._close()

    def log_tail(self) -> str:
        """The last lines of the log."""
        try:
            with self._log.open("rb") as file:
                file.seek(max(0, self._log.stat().st_size - _LOG_TAIL_BYTES))
                return file.read().decode(errors="replace").strip()
        except OSError:
            return ""

    def _close(self) -> None:
        if self._process and self._whole_group:
            _end_group(self._process.pid)
        if self._process and self._process.stdin:
            self._process.stdin.close()
        self._process = None


def _end_group(leader: int) -> None:
    """End what is left of a group whose leader has ended."""
    deadline = time.monotonic() + _GROUP_STOP_SECONDS
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGTERM)
        while time.monotonic() < deadline:
            os.killpg(leader, 0)
            time.sleep(0.05)
        os.killpg(leader, signal.SIGKILL)


def describe(status: int) -> str:
    """How a process ended, in words."""
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def end_with_parent() -> None:
    """In a child: end this process, first politely, when the parent's end of standard input is gone."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_LAST_RESORT_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()
