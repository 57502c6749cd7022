"""The API as a server with something of everything in it, and schemathesis on all that its OpenAPI document names."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.api.app import create_app
from hpo_service.api.process import listen
from hpo_service.storage.database import session_factory
from tests import serving
from tests.dispatching import turn_until
from tests.serving import spec

_CONFIG = Path(__file__).with_name("schemathesis.toml")
_SEARCH = {"strategy": "asha", "sampler": "random", "deterministic": True, "seed": 3}
_CONFIRM = {"seeds": 2, "share": 1.0}


@dataclass(frozen=True)
class Served:
    """Where the API is, and a key that may do everything."""

    url: str
    key: str


@dataclass(frozen=True)
class Report:
    """What schemathesis did. Of `failures` each says the operation, the check and what was wrong."""

    operations: int
    cases: int
    failures: tuple[str, ...]


@contextmanager
def served(engine: Engine, root: Path) -> Iterator[Served]:
    """A server with an ended study and its confirmation, trials, snapshots, promotion, checks, worker, and a study
    that waits. No dispatcher runs, so what is asked for afterwards stays asked for.
    """
    settings = serving.settings(root)
    app = create_app(settings, engine, with_dashboard=False)
    key = populate(TestClient(app), engine, root)
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", key)
    finally:
        server.should_exit = True
        app.state.stopping.set()
        thread.join()
        listener.close()


def populate(client: TestClient, engine: Engine, root: Path) -> str:
    """Something of everything in project `default`; the key that made it."""
    sessions = session_factory(engine)
    key = _make_keys(sessions)
    client.headers.update(serving.bearer(key))
    _post(client, "/v1/studies", spec("first", search=_SEARCH, budget={"max_trials": 4}))
    budget = {"max_trials": 4, "max_examples": 3000}
    _post(client, "/v1/studies", spec("confirmed", search=_SEARCH, confirm=_CONFIRM, budget=budget))
    dispatcher, _ = serving.make_dispatcher(sessions)
    turn_until(dispatcher, lambda: all(_state(client, name) == "completed" for name in ("first", "confirmed")))
    for trial in client.get("/v1/studies/first/trials").json()["items"]:
        serving.keep_snapshot(root, sessions, trial["number"])
    _post(client, "/v1/promotions", {"study": "first", "name": "bot"})
    _post(client, "/v1/path-checks", {})
    _post(client, "/v1/studies", spec("waiting"))
    client.get("/openapi.json")  # made once, which takes long
    return key


def fuzz(api: Served, folder: Path, *options: str) -> Report:
    """Run schemathesis with options of its command line. Everything that it checks and that can hold is checked."""
    path = folder / "report.json"
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(_CONFIG), "run", f"{api.url}/openapi.json",
        "--header", f"Authorization:Bearer {api.key}", "--generation-database", "none", "--no-shrink",
        "--report-json-path", str(path), *options,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert path.exists(), f"{done.stdout[-4000:]}{done.stderr[-4000:]}"
    report = json.loads(path.read_text())
    assert report["complete"], done.stdout[-4000:]
    failures = [json.dumps(failure)[:2000] for failure in [*report["failures"], *report["errors"]]]
    assert (report["exit_code"] == 0) == (not failures), done.stdout[-4000:]
    return Report(report["operations"]["tested"], report["test_cases"]["generated"], tuple(failures))


def _make_keys(sessions: sessionmaker[Session]) -> str:
    """Keys 1 and 2 for the routes that end keys, and one that they do not find by chance."""
    for _ in range(2):
        serving.make_key(sessions)
    with sessions.begin() as session:
        session.execute(text("SELECT setval(pg_get_serial_sequence('hpo.api_keys', 'id'), 7654321)"))
    return serving.make_key(sessions)


def _post(client: TestClient, path: str, body: dict[str, Any]) -> None:
    answer = client.post(path, json=body)
    assert answer.is_success, answer.text


def _state(client: TestClient, name: str) -> str:
    return str(client.get(f"/v1/studies/{name}").json()["state"])
