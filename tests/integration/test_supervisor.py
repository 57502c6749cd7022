"""`hpo up` as a process: what keeps it from starting, what it restarts, what it leaves behind."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.service import ROOT, Service


@pytest.fixture
def service(postgres_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service without workers, not started."""
    monkeypatch.setenv("HPO_WORKERS", "0")
    service = Service(postgres_folder / "home")
    yield service
    for process in service.processes("everything"):
        process.kill()


def up(home: Path, port: int) -> subprocess.CompletedProcess[str]:
    """A start that is expected to fail."""
    return subprocess.run(
        [sys.executable, "-m", "hpo_service.cli", "up", "--port", str(port), "--home", str(home)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_taken_port_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = up(tmp_path / "home", port)
    assert done.returncode == 1
    assert f"Port {port} on 127.0.0.1 cannot be used" in done.stderr
    assert "--port" in done.stderr
    assert not (tmp_path / "home").exists()


def test_a_home_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = up(tmp_path / "file" / "home", free_port())
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert "--home" in done.stderr


def test_a_database_url_that_nobody_answers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/none")
    done = up(tmp_path / "home", free_port())
    assert done.returncode == 1
    assert "does not answer" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_life_of_a_service(service: Service) -> None:
    service.up()
    assert (service.home / "admin.key").stat().st_mode & 0o777 == 0o600

    second = up(service.home, free_port())
    assert second.returncode == 1
    assert f"`hpo up` runs already on {service.home}" in second.stderr
    assert service.url in second.stderr

    listed = service.run("study", "list", "-o", "json")
    assert (listed.returncode, listed.stdout) == (0, "[]\n")
    link = service.run("login").stdout.strip()
    assert link.startswith(f"{service.url}/login?token=")
    key = service.run("key", "create", "other").stdout.strip()
    assert key.startswith("hpo_key_")
    assert service.run("migrate").returncode == 0

    said = service.stacks()
    for process, function in (("up.log", "run_until"), ("api.log", "run_api"), ("dispatcher.log", "_turn_or_wait")):
        assert f"in {function}" in said.split(f"--- {process}")[1].split("--- ")[0]
    assert service.ready()

    for part in ("api", "dispatcher", "postgres"):
        before = {process.pid for process in service.processes(part)}
        service.kill(part)
        service.wait(
            lambda part=part, before=before: bool({p.pid for p in service.processes(part)} - before),  # type: ignore[misc]
            30,
            f"another {part}",
        )
    service.wait(service.ready, 30, "the service to be ready again")

    assert service.down() == 0
    assert service.processes("everything") == []
    assert not (service.home / "service.json").exists()


def test_an_outbox_runs_where_there_is_somebody_to_tell(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    service.up()
    before = {process.pid for process in service.processes("outbox")}
    assert before
    service.kill("outbox")
    service.wait(lambda: bool({p.pid for p in service.processes("outbox")} - before), 30, "another outbox")
    assert service.ready()
    assert service.down() == 0
    assert service.processes("everything") == []


def test_children_end_with_a_killed_supervisor_and_the_next_start_adopts_the_rest(service: Service) -> None:
    service.up()
    key = (service.home / "admin.key").read_text()
    parent = next(process for process in service.processes("everything") if "up" in process.cmdline())
    postgres = service.processes("postgres")
    os.kill(parent.pid, signal.SIGKILL)
    service.wait(lambda: service.processes("api") == [], 30, "the API to end with its parent")
    service.wait(lambda: service.processes("dispatcher") == [], 30, "the dispatcher to end with its parent")
    assert service.processes("postgres") == postgres
    service.up()
    assert service.processes("postgres") == postgres
    assert (service.home / "admin.key").read_text() == key
    assert service.down() == 0
    assert service.processes("everything") == []
