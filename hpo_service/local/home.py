"""The folder of a zero-setup service: who may use it, and how others find the service that does."""

import json
import os
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hpo_service.core.errors import SetupError
from hpo_service.local.postgres.locks import try_lock

_LEFTOVER_SECONDS = 20.0


@dataclass(frozen=True)
class Home:
    """Paths below `root`; nothing is created before `locked`."""

    root: Path

    @property
    def logs(self) -> Path:
        """One log file a process."""
        return self.root / "logs"

    @property
    def admin_key(self) -> Path:
        """The API key made at first start, readable by its owner only."""
        return self.root / "admin.key"

    @property
    def service_file(self) -> Path:
        """Where the running service answers."""
        return self.root / "service.json"

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Own the folder: one `hpo up` at a time. Yields a descriptor that every child process must inherit.

        Children of a service that was killed hold it still; they end by themselves, which is waited for.

        Raises:
            SetupError: the folder cannot be used, or another `hpo up` runs on it.
        """
        self._make()
        owner = try_lock(self.root / "up.lock")
        if owner is None:
            where = self.url()
            raise SetupError(
                f"`hpo up` runs already on {self.root}{f' and answers at {where}' if where else ''}. "
                "Use that one, stop it first, or name another folder with --home."
            )
        try:
            children = self._wait_for_leftovers()
            try:
                yield children
            finally:
                self.service_file.unlink(missing_ok=True)
                os.close(children)
        finally:
            os.close(owner)

    def url(self) -> str | None:
        """Where the service of this folder says it answers; None if it does not say."""
        return self._announced("url")

    def mlflow_url(self) -> str | None:
        """Where MLflow's server of this folder's service answers; None if there is none."""
        return self._announced("mlflow")

    def announce(self, url: str, port: int, *, mlflow: str | None = None) -> None:
        """Tell other commands where the service answers, and the MLflow server that it brings."""
        text = json.dumps({"url": url, "port": port, "pid": os.getpid(), "mlflow": mlflow})
        self._write_private(self.service_file, f"{text}\n")

    def key(self) -> str | None:
        """The admin key, None before the first start. Raises SetupError if others could read it."""
        try:
            mode = self.admin_key.stat().st_mode
            text = self.admin_key.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SetupError(f"{self.admin_key} cannot be read: {error.strerror}.") from error
        if stat.S_IMODE(mode) & 0o077:
            raise SetupError(f"{self.admin_key} can be read by other users. Run: chmod 600 {self.admin_key}")
        return text or None

    def keep_key(self, key: str) -> None:
        """Store the admin key."""
        self._write_private(self.admin_key, f"{key}\n")

    def _make(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
            self.logs.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise SetupError(
                f"The folder {self.root} cannot be written ({error.strerror}). "
                "Name another with --home or HPO_HOME, or correct its permissions."
            ) from error

    def _announced(self, name: str) -> str | None:
        try:
            told = json.loads(self.service_file.read_text(encoding="utf-8"))[name]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return None if told is None else str(told)

    def _wait_for_leftovers(self) -> int:
        deadline = time.monotonic() + _LEFTOVER_SECONDS
        path = self.root / "children.lock"
        while (descriptor := try_lock(path)) is None:
            if time.monotonic() > deadline:
                raise SetupError(
                    f"Processes of an earlier `hpo up` on {self.root} have not ended (they hold {path}). "
                    "End them, then try again."
                )
            time.sleep(0.1)
        return descriptor

    def _write_private(self, path: Path, text: str) -> None:
        unfinished = path.with_name(f"{path.name}.part")
        unfinished.unlink(missing_ok=True)
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)


def require_free_port(host: str, port: int, *, remedy: str = "choose another with --port or HPO_PORT") -> None:
    """Raise SetupError unless a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SetupError(
                f"Port {port} on {host} cannot be used ({error.strerror}). Stop the program that has it, or {remedy}."
            ) from error


def free_port(host: str, preferred: int) -> int:
    """`preferred` if it is free, else any free port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, preferred))
        except OSError:
            probe.bind((host, 0))
        return int(probe.getsockname()[1])
