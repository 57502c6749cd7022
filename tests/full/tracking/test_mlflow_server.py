"""The same promises as tests/integration/test_outbox_{mlflow,promotions}.py, kept by MLflow's own server on PostgreSQL.

The server lives in an environment of its own, made once from what the image installs.
"""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import mlflow.artifacts
import pytest
from mlflow.tracking import MlflowClient
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.integrations import delivery as delivery_module
from hpo_service.integrations.delivery import Delivery
from hpo_service.integrations.mlflow import MlflowTracker
from hpo_service.integrations.process import MLFLOW_ENVIRONMENT
from hpo_service.integrations.tracker_sink import TrackingSink
from hpo_service.local.mlflow_server.server import ENVIRONMENT, REQUIREMENTS
from tests import serving
from tests.dispatching import make, post_study, state_of, turn_until
from tests.promoted import end_study, promote
from tests.tracked import drain, require_told, rewind, runs_of
from trainer.export.tools import Tools
from trainer.snapshots.stores import open_store

START_SECONDS = 240


@pytest.fixture(scope="module")
def server_bin() -> Path:
    """Made if it is not there."""
    return Tools().environment("mlflow", REQUIREMENTS).parent


@contextmanager
def serving_mlflow(server_bin: Path, backend: str, artifacts: Path, port: int) -> Iterator[str]:
    """MLflow's server, until it is stopped with all its processes."""
    url = f"http://127.0.0.1:{port}"
    options = ["--workers", "1", "--serve-artifacts", "--artifacts-destination", str(artifacts)]
    with (artifacts.parent / "mlflow.log").open("ab") as log:
        process = subprocess.Popen(
            [server_bin / "python", "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), *options],
            env={**os.environ, **ENVIRONMENT, "MLFLOW_BACKEND_STORE_URI": backend},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait(url, process)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def free_port() -> int:
    """Nobody listens there yet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/health", trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise AssertionError("MLflow's server did not start")


@pytest.mark.timeout(900)
def test_down_for_a_whole_study_then_complete_and_once(
    server_bin: Path,
    empty_database_url: str,
    database_url: str,
    engine: Engine,
    sessions: sessionmaker[Session],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in MLFLOW_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    port = free_port()
    url, store = f"http://127.0.0.1:{port}", open_store(tmp_path / "snapshots")

    def deliver() -> Delivery:
        return Delivery(engine, TrackingSink(sessions, MlflowTracker(url, "hpo"), store=store, keep_best=2))

    stop, down = threading.Event(), deliver()
    outbox = threading.Thread(target=down.run, args=(stop,))
    outbox.start()
    study_id = post_study(sessions)
    dispatcher, _ = make(sessions)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    dispatcher.context.proposals.close()
    deadline = time.monotonic() + 60
    while not down.failures and time.monotonic() < deadline:
        time.sleep(0.05)
    stop.set()
    outbox.join()
    assert down.failures

    artifacts = tmp_path / "artifacts"
    with serving_mlflow(server_bin, empty_database_url, artifacts, port):
        client = MlflowClient(url)
        monkeypatch.setattr(delivery_module, "_BATCH_EVENTS", 40)
        half = deliver()
        half.turn()
        half.turn()
    half.turn()
    assert half.failures == 1
    with serving_mlflow(server_bin, empty_database_url, artifacts, port):
        drain(half)
        parent = require_told(client, database_url)
        rewind(engine)
        drain(deliver())
        assert require_told(client, database_url).info.run_id == parent.info.run_id
        kept = {file.path for file in client.list_artifacts(parent.info.run_id)}
        assert kept == {"study.json", "best.yaml", "report.html"}
        gone = next(run for run in runs_of(client) if run.data.tags.get("hpo.trial") == "3")
        client.delete_run(gone.info.run_id)
        rewind(engine)
        drain(deliver())
        assert "3" not in {run.data.tags.get("hpo.trial") for run in runs_of(client)}


@pytest.mark.timeout(900)
def test_promotions_are_versions_and_the_champion_is_what_is_in_use(
    server_bin: Path,
    empty_database_url: str,
    engine: Engine,
    sessions: sessionmaker[Session],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in MLFLOW_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    root = tmp_path.resolve() / "files"
    serving.make_inputs(root)
    api = serving.serve(engine, serving.settings(root))
    api.headers.update(serving.bearer(serving.make_key(sessions)))
    end_study(api, sessions, root)
    best = promote(api)["trial_number"]
    promote(api, trial=0)

    with serving_mlflow(server_bin, empty_database_url, tmp_path / "artifacts", free_port()) as url:
        client = MlflowClient(url)

        def tell() -> None:
            dispatcher, _ = serving.make_dispatcher(sessions)
            for _ in range(3):
                dispatcher.turn()
            dispatcher.context.proposals.close()
            dispatcher.context.leadership.release()
            store = open_store(root / "home" / "snapshots")
            drain(Delivery(engine, TrackingSink(sessions, MlflowTracker(url, "hpo"), store=store, keep_best=1)))

        tell()
        champion = client.get_model_version_by_alias("bot", "champion")
        assert (champion.tags["hpo.promotion"], champion.tags["hpo.trial"]) == ("bot@2", "0")
        assert api.post("/v1/promotions/bot:rollback", json={}).status_code == 201
        tell()
        rewind(engine)
        tell()
        champion = client.get_model_version_by_alias("bot", "champion")
        assert (champion.tags["hpo.promotion"], champion.tags["hpo.trial"]) == ("bot@1", str(best))
        assert len(client.search_model_versions("name = 'bot'")) == 2
        assert champion.run_id is not None
        assert client.get_run(champion.run_id).data.tags["hpo.trial"] == str(best)
        uri = client.get_model_version_download_uri("bot", champion.version)
        folder = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path / "got"), tracking_uri=url))
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
            name: serving.SNAPSHOT_FILES[name] for name in ("adapter_config.json", "adapter_model.safetensors")
        }
