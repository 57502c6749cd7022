"""A real `hpo up` in a folder of its own, as a user would start it, for benchmarks that drive it over HTTP."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from sqlalchemy import Engine, func, select

from hpo_service.client.http import Client, study_path
from hpo_service.core.settings import Settings
from hpo_service.local.home import Home
from hpo_service.local.supervisor import database_url
from hpo_service.storage.database import make_engine
from hpo_service.storage.tables import Worker

START_SECONDS = 300.0
_POLL_SECONDS = 0.25


@contextmanager
def served(home: Path, *, roots: tuple[Path, ...], threads: int, log_path: Path) -> Iterator[tuple[Client, Engine]]:
    """The service with one worker that is ready, until the end of the block."""
    port = _any_free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HPO_")}
    environment |= {
        "HPO_ROOTS": ":".join(map(str, roots)),
        "HPO_WORKERS": "1",
        "HPO_THREADS_PER_WORKER": str(threads),
    }
    command = [sys.executable, "-m", "hpo_service.cli", "up", "--port", str(port), "--home", str(home)]
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        wait_until(lambda: _is_ready(process, log_path, Home(home)), START_SECONDS, "no service answers")
        engine = make_engine(database_url(Settings(home=home, port=port)), application_name="benchmark")
        try:
            wait_until(lambda: _worker_is_ready(engine), START_SECONDS, "no worker became ready")
            with Client(f"http://127.0.0.1:{port}", Home(home).key()) as client:
                yield client, engine
        finally:
            engine.dispose()
    finally:
        process.terminate()
        process.wait(120)


def has_ended(client: Client, name: str) -> bool:
    """Whether the study is completed; RuntimeError if it failed."""
    document = client.get(study_path(name))
    if document["state"] in ("failed", "cancelled"):
        raise RuntimeError(f"the study {document['state']}: {document['message']}")
    return bool(document["state"] == "completed")


def wait_until(condition: Callable[[], bool], limit_seconds: float, problem: str) -> None:
    """Ask again and again; RuntimeError with the problem once the limit has passed."""
    deadline = time.monotonic() + limit_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{problem} within {limit_seconds:.0f} s")
        time.sleep(_POLL_SECONDS)


def _any_free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_ready(process: subprocess.Popen[bytes], log_path: Path, home: Home) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"`hpo up` ended:\n{log_path.read_text(errors='replace')[-2000:]}")
    url = home.url()  # written once the database is prepared and the key exists; so it is our service that answers
    if url is None:
        return False
    try:
        return httpx.get(f"{url}/readyz", trust_env=False, timeout=2).is_success
    except httpx.TransportError:
        return False


def _worker_is_ready(engine: Engine) -> bool:
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).where(Worker.state == "ready")) == 1
