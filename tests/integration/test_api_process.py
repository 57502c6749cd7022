"""`run_api` as a process: it stops quickly with a stream open, and its dashboard never outlives it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.client import ApiProblem, Client
from tests import serving

CODE = "from hpo_service.serve import run_api; from hpo_service.settings import Settings; run_api(Settings())"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(root: Path, database_url: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **os.environ,
        "HPO_DATABASE_URL": database_url,
        "HPO_PORT": str(port),
        "HPO_ROOTS": str(root),
        "HPO_HOME": str(root / "home"),
    }
    with (root / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", CODE], env=environment, stderr=log, stdout=log)
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None
            assert time.monotonic() < deadline
            try:
                httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for_dashboard(client: Client) -> None:
    for _ in range(300):
        with suppress(ApiProblem):
            client.get("/api/meta")
            return
        time.sleep(0.2)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left(
    root: Path, database_url: str, sessions: sessionmaker[Session], ending: signal.Signals
) -> None:
    port = free_port()
    key = serving.make_key(sessions)
    with running(root, database_url, port) as process, Client(f"http://127.0.0.1:{port}", key) as client:
        children = psutil.Process(process.pid).children()
        assert len(children) == 1
        command = children[0].cmdline()
        folder = Path(command[command.index("--socket") + 1]).parent
        client.create_study(serving.spec())
        wait_for_dashboard(client)
        with client.events("first", 0):
            process.send_signal(ending)
            process.wait(10)
        _, alive = psutil.wait_procs(children, timeout=15)
        assert alive == []
        assert not folder.exists()
    if ending is signal.SIGTERM:
        assert process.returncode in (0, -signal.SIGTERM)
        assert "Traceback" not in (root / "log").read_text()
    assert key not in (root / "log").read_text()
