"""Keeps optuna-dashboard's process running while the API does."""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from hpo_service.core.settings import Settings
from trainer.common.logs import FORMAT_VARIABLE

log = logging.getLogger(__name__)

URL_VARIABLE = "HPO_DASHBOARD_SERVER_URL"
_MAX_SOCKET_PATH_BYTES = 100
_FIRST_DELAY_SECONDS = 0.5
_MAX_DELAY_SECONDS = 30.0
_STOP_SECONDS = 5.0
_INHERITED = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "PYTHONUNBUFFERED", "SSL_CERT_FILE"),
    FORMAT_VARIABLE,
)


class DashboardProcess:
    """One supervised child with a private socket. Its standard input ends when this process does."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._folder = _private_folder()
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._supervise, name="dashboard", daemon=True)

    @property
    def socket_path(self) -> str:
        """Where the child listens when it is up."""
        return str(self._folder / "s")

    @property
    def pid(self) -> int | None:
        """The running child, None between two lives."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the child and keep starting it."""
        self._thread.start()

    def stop(self) -> None:
        """End the child for good."""
        self._stopping.set()
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
        self._thread.join(_STOP_SECONDS)
        if process is not None and process.poll() is None:
            process.kill()
            self._thread.join()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _supervise(self) -> None:
        delay = _FIRST_DELAY_SECONDS
        while not self._stopping.is_set():
            started = time.monotonic()
            status = self._run_once()
            if self._stopping.is_set():
                return
            log.warning("optuna-dashboard ended with status %s; starting it again", status)
            lived = time.monotonic() - started
            delay = _FIRST_DELAY_SECONDS if lived > _MAX_DELAY_SECONDS else min(_MAX_DELAY_SECONDS, 2 * delay)
            self._stopping.wait(delay)

    def _run_once(self) -> int:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        Path(self.socket_path).unlink(missing_ok=True)
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        with subprocess.Popen(
            [sys.executable, "-m", "hpo_service.dashboard.server", "--socket", self.socket_path],
            stdin=subprocess.PIPE,
            env=environment | {URL_VARIABLE: self._url},
        ) as process:
            self._process = process
            if self._stopping.is_set():
                process.terminate()
            status = process.wait()
        self._process = None
        return status


def dashboard_url(settings: Settings) -> str | None:
    """The database as the dashboard is to see it: with the SELECT-only role where there is one."""
    secret = settings.dashboard_database_url or settings.database_url
    return None if secret is None else secret.get_secret_value()


def _private_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="hpo-dashboard-"))
    if len(bytes(folder / "s")) > _MAX_SOCKET_PATH_BYTES:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="hpo-dashboard-", dir="/tmp"))
    return folder
