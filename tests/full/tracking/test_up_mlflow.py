"""`hpo up --mlflow`: MLflow's own server beside the rest, told of studies, started again, and gone with `hpo up`."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from mlflow.tracking import MlflowClient

from hpo_service.integrations.process import MLFLOW_ENVIRONMENT
from tests.e2e.service import STUDY, Service
from tests.full.tracking.test_mlflow_server import free_port
from tests.tracked import runs_of


@pytest.fixture
def service(postgres_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    for name, value in MLFLOW_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HPO_MLFLOW_PORT", str(free_port()))
    service = Service(postgres_folder / "home")
    yield service
    for process in service.processes("everything") + service.processes("mlflow"):
        process.kill()


@pytest.mark.timeout(900)
def test_mlflow_comes_and_goes_with_the_service(service: Service) -> None:
    service.up("--mlflow")
    url = json.loads((service.home / "service.json").read_text())["mlflow"]

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/health", timeout=5.0, trust_env=False).is_success
        except httpx.TransportError:
            return False

    service.wait(answers, 240, "MLflow's server")
    port = url.rsplit(":", 1)[1]
    for host, status in ((f"localhost:{port}", 200), ("rebound.example", 403)):
        headers = {"Host": host}
        asked = httpx.get(f"{url}/api/2.0/mlflow/experiments/get?experiment_id=0", headers=headers, trust_env=False)
        assert asked.status_code == status
    with service.client() as client:
        client.create_study({**STUDY, "budget": {"max_trials": 2}})
    service.wait_for_end("study")
    client = MlflowClient(url)
    service.wait(lambda: client.get_experiment_by_name("hpo") is not None, 60, "the experiment")
    service.wait(
        lambda: [run.info.status for run in runs_of(client) if "hpo.trial" not in run.data.tags] == ["FINISHED"],
        120,
        "the study's run",
    )
    (doctor,) = [one for one in json.loads(service.run("doctor", "-o", "json").stdout) if one["check"] == "mlflow"]
    assert doctor["ok"]

    before = {process.pid for process in service.processes("mlflow")}
    service.kill("mlflow")
    service.wait(lambda: bool({one.pid for one in service.processes("mlflow")} - before), 30, "another server")
    service.wait(answers, 240, "it to answer")
    assert service.down() == 0
    assert service.processes("mlflow") == service.processes("everything") == []
    assert not answers()
