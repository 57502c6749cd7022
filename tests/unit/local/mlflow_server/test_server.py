"""MLflow's server beside `hpo up`: what it is given, what keeps it from starting, and that it ends with us."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr

from hpo_service.core.errors import SetupError
from hpo_service.core.settings import Settings
from hpo_service.local.mlflow_server import MlflowServer, require_startable
from hpo_service.local.mlflow_server.server import REQUIREMENTS

#: stands for MLflow: its launcher, too, waits for a server that it does not end
STAND_IN = """
import subprocess, sys
server = subprocess.Popen(["sleep", "600"])
print(sys.argv, server.pid, flush=True)
server.wait()
"""


@pytest.fixture
def server(tmp_path: Path) -> MlflowServer:
    return MlflowServer(python=Path(sys.executable), port=5055, artifacts=tmp_path / "mlflow")


def test_it_is_for_this_machine_and_learns_nothing_of_ours(
    server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_WEBHOOK_SECRET", "canary")
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "true")
    command, environment = server.command(), server.environment("postgresql://mlflow@/mlflow")
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--allowed-hosts") + 1] == "127.0.0.1:5055,localhost:5055"
    assert "canary" not in environment.values()
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert "mlflow@" not in " ".join(command)


def test_what_keeps_it_from_starting(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = Settings(home=tmp_path, mlflow_port=taken.getsockname()[1])
        with pytest.raises(SetupError, match="HPO_MLFLOW_PORT"):
            require_startable(settings)
    require_startable(settings)
    for changes, remedy in (
        ({"mlflow_tracking_uri": SecretStr("http://other")}, "MLFLOW_TRACKING_URI names"),
        ({"database_url": SecretStr("postgresql://h/d")}, "HPO_DATABASE_URL is set"),
    ):
        with pytest.raises(SetupError, match=remedy):
            require_startable(settings.model_copy(update=changes))


def test_what_is_installed_is_pinned() -> None:
    assert REQUIREMENTS.read_text().splitlines()[0].startswith("mlflow==3.")


def test_all_of_it_ends_with_standard_input(server: MlflowServer, tmp_path: Path) -> None:
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "__init__.py").touch()
    (tmp_path / "mlflow" / "__main__.py").write_text(STAND_IN)
    process = subprocess.Popen(
        server.command(),
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    said = process.stdout.readline()
    assert "'server', '--host', '127.0.0.1'" in said
    child = psutil.Process(int(said.split()[-1]))
    process.stdin.close()
    process.wait(20)
    deadline = time.monotonic() + 20
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    process.stdout.close()
