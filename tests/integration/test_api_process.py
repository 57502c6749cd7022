"""`run_api` as a process: it stops quickly with a stream open, and its dashboard never outlives it."""

import json
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

from hpo_service.client.http import ApiProblem, Client
from tests import serving

CODE = (
    "from hpo_service.api.process import run_api; from hpo_service.core.settings import Settings; run_api(Settings())"
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(root: Path, database_url: str, port: int, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **os.environ,
        "HPO_DATABASE_URL": database_url,
        "HPO_PORT": str(port),
        "HPO_ROOTS": str(root),
        "HPO_HOME": str(root / "home"),
        **settings,
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


def test_its_log_is_json_and_holds_no_secret(root: Path, database_url: str, sessions: sessionmaker[Session]) -> None:
    port, key, token = free_port(), serving.make_key(sessions), "t" * 32
    with running(root, database_url, port, HPO_LOG_FORMAT="json", HPO_METRICS_TOKEN=token) as process:
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, trust_env=False, headers=serving.bearer(key)) as client:
            assert client.get("/v1/studies").status_code == 200
            assert client.get(f"/login?token={key}").status_code == 401
            assert client.get("/metrics", headers=serving.bearer(token)).status_code == 200
        process.terminate()
        process.wait(timeout=30)
    log = (root / "log").read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    assert {"uvicorn.error", "hpo_service.api.middleware.request_log"} <= {line["logger"] for line in lines}
    assert [line["path"] for line in lines if "path" in line] == ["/v1/studies", "/login"]
    assert key.split("_", 3)[3] not in log
    assert token not in log
