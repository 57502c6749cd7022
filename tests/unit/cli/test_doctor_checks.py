"""What `hpo doctor` makes of what it sees, on machines that are not this one."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from pydantic import SecretStr

from hpo_service.cli.database_checks import judge_database
from hpo_service.cli.findings import Finding
from hpo_service.cli.machine_checks import check_mlflow, check_ray, check_shared_memory, check_sinks, judge_devices
from hpo_service.core.settings import Settings
from hpo_service.integrations import switches
from hpo_service.local.home import Home
from hpo_service.storage.database.facts import DatabaseFacts
from trainer.spec.installation import Gpu, Installation, Part

GPU = Gpu(name="NVIDIA H100", memory_bytes=80 * 1024**3)
WHOLE = Installation(
    driver="580.1",
    gpus=(GPU, GPU),
    torch=Part(version="2.13.0"),
    cuda="13.0",
    visible=2,
    flash_attn=Part(version="2.8.3"),
    deepspeed=Part(version="0.19.8"),
)
FACTS = DatabaseFacts(
    server="18.6",
    size_bytes=10 * 1024**2,
    connections=5,
    most_connections=100,
    clock_ahead_seconds=0.1,
    revision="0006",
    head="0006",
    optuna_revision="v3.2.0.a",
    optuna_head="v3.2.0.a",
    optuna_library="5.0.0",
)


def wrong(findings: list[Finding]) -> dict[str, str]:
    """Remedies of what is wrong."""
    return {found.check: found.remedy for found in findings if not found.ok}


def test_a_whole_machine() -> None:
    findings = judge_devices(WHOLE)
    assert wrong(findings) == {}
    assert {found.check for found in findings} == {"gpus", "driver", "flash-attn", "deepspeed"}
    assert "torch sees 2 of 2" in findings[0].detail
    assert "80 GB" in findings[0].detail


def test_without_gpus_nothing_is_wrong() -> None:
    assert wrong(judge_devices(Installation(torch=Part(version="2.13.0+cpu")))) == {}


def test_gpus_that_torch_does_not_see() -> None:
    remedies = wrong(judge_devices(WHOLE.model_copy(update={"visible": 0})))
    assert set(remedies) == {"gpus"}
    assert "driver 580.1" in remedies["gpus"]
    assert "CUDA_VISIBLE_DEVICES" in remedies["gpus"]


def test_libraries_that_do_not_fit() -> None:
    broken = {
        "flash_attn": Part(version="2.8.3", problem="ImportError: undefined symbol"),
        "deepspeed": Part(version="0.19.8", problem="its CPU optimizer cannot be compiled here"),
    }
    assert set(wrong(judge_devices(WHOLE.model_copy(update=broken)))) == {"flash-attn", "deepspeed"}
    absent = {"flash_attn": Part(), "deepspeed": Part()}
    assert wrong(judge_devices(WHOLE.model_copy(update=absent))) == {}


@pytest.mark.parametrize(
    ("changes", "check", "remedy"),
    [
        ({"revision": "0005"}, "schema", "hpo migrate"),
        ({"revision": None}, "schema", "hpo migrate"),
        ({"revision": "0099"}, "schema", "upgrade this program"),
        ({"optuna_revision": "v2.6.0.a"}, "optuna", "optuna storage upgrade"),
        ({"optuna_revision": None}, "optuna", "hpo migrate"),
        ({"clock_ahead_seconds": -9.0}, "clock", "NTP"),
        ({"connections": 95}, "connections", "max_connections"),
        ({"server": "14.2 (Debian 14.2-1)"}, "postgresql", "15 or newer"),
    ],
)
def test_a_database_that_does_not_fit(changes: dict[str, object], check: str, remedy: str) -> None:
    assert wrong(judge_database(FACTS)) == {}
    remedies = wrong(judge_database(DatabaseFacts(**{**FACTS.__dict__, **changes})))
    assert set(remedies) == {check}
    assert remedy in remedies[check]


def test_ray_needs_its_token() -> None:
    ray = Settings(executor="ray", RAY_ADDRESS="127.0.0.1:6379")
    assert check_ray(Settings()) == []
    assert "ray get-auth-token" in wrong(check_ray(ray, {}))["ray token"]
    (found,) = check_ray(Settings(executor="ray"), {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "x"})
    assert "RAY_ADDRESS is not set" in found.detail


def test_shared_memory_matters_where_ranks_talk() -> None:
    assert check_shared_memory(Settings(workers=1)) == []
    (found,) = check_shared_memory(Settings(workers=2))
    assert found.check == "shared memory"
    assert found.ok or "--shm-size" in found.remedy


class _Mlflow(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/mlflow/health" else 403)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def mlflow() -> Iterator[str]:
    """A server that answers at /mlflow/health only."""
    server = HTTPServer(("127.0.0.1", 0), _Mlflow)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://user:secret@127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_mlflow_is_asked_where_it_is_named(mlflow: str, tmp_path: Path) -> None:
    def check(uri: str | None) -> list[Finding]:
        return check_mlflow(Settings(home=tmp_path, MLFLOW_TRACKING_URI=uri))

    assert check(None) == []
    (found,) = check(str(tmp_path))
    assert not found.ok
    assert "told to servers only" in found.detail
    (found,) = check("http://[::1")
    assert "is no URL" in found.detail
    (found,) = check(f"{mlflow}/mlflow")
    assert found.ok
    assert "secret" not in found.detail
    (found,) = check(mlflow)
    assert "says 403" in found.detail
    (found,) = check("http://127.0.0.1:1")
    assert "does not answer" in found.detail
    Home(tmp_path).announce("http://127.0.0.1:8080", 8080, mlflow=f"{mlflow}/mlflow")
    (found,) = check(None)
    assert found.ok


def test_other_sinks_have_findings_of_their_own(mlflow: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switches, "find_spec", lambda name: None if name == "wandb" else True)
    settings = Settings(
        home=tmp_path,
        MLFLOW_TRACKING_URI=f"{mlflow}/mlflow",
        WANDB_MODE="offline",
        webhook_url=SecretStr("https://hooks.example/canary"),
    )
    found = check_sinks(settings)
    assert [(one.check, one.ok) for one in found] == [("webhook", False), ("wandb", False), ("mlflow", True)]
    assert "hpo-service[wandb]" in found[1].remedy
    assert "canary" not in str(found)
    assert check_sinks(Settings(home=tmp_path)) == []
