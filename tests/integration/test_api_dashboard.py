"""optuna-dashboard behind the service: guarded, for reading only, started again when it dies."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import psycopg2
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.api.http.dashboard_paths import HIDDEN
from hpo_service.dashboard.process import DashboardProcess
from hpo_service.dashboard.server import open_storage
from hpo_service.storage.database import optuna_url
from tests import serving
from tests.dispatching import expire_lease, turn_until
from tests.safe_answers import require_safe
from tests.serving import spec

Sessions = sessionmaker[Session]
WRITES = [
    ("POST", "/api/studies"),
    ("DELETE", "/api/studies/{id}"),
    ("POST", "/api/studies/{id}/rename"),
    ("PUT", "/api/studies/{id}/note"),
    ("POST", "/api/trials/1/tell"),
    ("PATCH", "/dashboard"),
    ("OPTIONS", "/api/studies"),
]
NAMING = [
    "/api/studies/{id}",
    "/api/studies/{id}?after=2",
    "/api/studies/{id}/param_importances",
    "/csv/{id}",
    "/csv/{id}?trial_ids=1,2",
    "/dashboard/studies/{id}",
    "/dashboard/studies/{id}/trials?numbers=1",
]


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not reached in time"
        time.sleep(0.1)


@pytest.fixture
def client(
    engine: Engine, sessions: Sessions, root: Path, database_url: str, dashboard_url: str
) -> Iterator[TestClient]:
    """A client of the whole service, with a study that has ended."""
    settings = serving.settings(
        root, database_url=SecretStr(database_url), dashboard_database_url=SecretStr(dashboard_url)
    )
    with serving.serve(engine, settings) as client:
        client.headers.update(serving.bearer(serving.make_key(sessions)))
        client.post("/v1/studies", json=spec())
        dispatcher, _ = serving.make_dispatcher(sessions)
        turn_until(dispatcher, lambda: client.get("/v1/studies/first").json()["state"] == "completed")
        wait_for(lambda: client.get("/api/meta").status_code == 200)
        yield client


def study_id(client: TestClient) -> int:
    return int(client.get("/v1/studies/first").json()["dashboard"].rpartition("/")[2])


def test_it_shows_our_studies_and_changes_nothing(client: TestClient, database_url: str) -> None:
    number = study_id(client)
    assert client.get("/api/studies").json()["study_summaries"][0]["study_name"] == "first"
    detail = client.get(f"/api/studies/{number}").json()
    assert len(detail["trials"]) == 6
    assert client.head("/dashboard").status_code == 200
    page = client.get(f"/dashboard/studies/{number}")
    assert page.status_code == 200
    assert f"<style>{HIDDEN}</style></head>" in page.text
    for path in ("/", "/dashboard", "/dashboard/nothing", f"/dashboard/studies/{number}", "/static/bundle.js",
                 "/static/nothing", "/favicon.ico", "/api/meta", "/api/nothing", "/api/studies"):  # fmt: skip
        require_safe(client.get(path))
    script = client.get("/static/bundle.js")
    assert len(script.content) > 1_000_000
    assert "max-age" in script.headers["cache-control"]
    assert client.get("/favicon.ico").status_code == 200
    before = optuna.load_study(study_name="first", storage=optuna_url(database_url)).trials
    for method, path in WRITES:
        answer = client.request(method, path.format(id=number), json={"study_name": "x", "state": "FAIL"})
        assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed"), path
        assert ("reason" in answer.json()) is path.startswith("/api/"), "the only field that its page shows"
    assert optuna.load_study(study_name="first", storage=optuna_url(database_url)).trials == before


def test_every_project_sees_its_own_studies(client: TestClient, sessions: Sessions) -> None:
    """A study of another project is answered like one that never was, on every address that names one."""
    mine = study_id(client)
    keys = client.headers["authorization"], bearer_of(sessions, serving.make_project(sessions, "other"))
    client.headers["authorization"] = keys[1]
    client.post("/v1/studies", json=spec())
    dispatcher, _ = serving.make_dispatcher(sessions)
    expire_lease(sessions)
    turn_until(dispatcher, lambda: client.get("/v1/studies/first").json()["state"] == "completed")
    theirs = study_id(client)
    for key, own, foreign, name in ((keys[0], mine, theirs, "first"), (keys[1], theirs, mine, "other/first")):
        client.headers["authorization"] = key
        shown = client.get("/api/studies").json()["study_summaries"]
        assert [(study["study_id"], study["study_name"]) for study in shown] == [(own, name)]
        assert client.head("/api/studies").status_code == 200
        for path in NAMING:
            answer = client.get(path.format(id=own))
            assert answer.status_code == 200, path
            require_safe(answer)
            answers = [client.get(path.format(id=number)) for number in (foreign, 987654)]
            assert [answer.status_code for answer in answers] == [404, 404], path
            assert answers[0].text == answers[1].text


def bearer_of(sessions: Sessions, project: int) -> str:
    return serving.bearer(serving.make_key(sessions, project))["Authorization"]


def test_its_importances_are_those_of_the_console(client: TestClient, sessions: Sessions) -> None:
    """Without our answer it would give a share to what never varied, and would see complete trials only."""
    client.post("/v1/studies", json=spec("more", budget={"max_trials": 14}))
    dispatcher, _ = serving.make_dispatcher(sessions)
    expire_lease(sessions)
    turn_until(dispatcher, lambda: client.get("/v1/studies/more").json()["state"] == "completed")
    ours = client.get("/v1/studies/more/importances").json()
    assert len(ours["importances"]) > 1
    number = client.get("/v1/studies/more").json()["dashboard"].rpartition("/")[2]
    shown = client.get(f"/api/studies/{number}/param_importances").json()["param_importances"]
    assert [[(one["name"], one["importance"]) for one in part] for part in shown] == [
        [(one["parameter"], one["share"]) for one in ours["importances"]]
    ]


def test_artifacts_and_other_paths_are_not_reachable(client: TestClient) -> None:
    number = study_id(client)
    for path in (f"/artifacts/{number}/1", f"/api/artifacts/{number}/1", "/incompatible-rdb-schema"):
        assert client.get(path).status_code == 404, path
    assert client.get("/static/..%2findex.html").status_code == 404
    assert client.get("/static/%2e%2e/index.html").status_code == 404


def test_it_comes_back_after_a_kill_and_waits_politely(client: TestClient) -> None:
    process = client.app_state["dashboard_process"]
    assert isinstance(process, DashboardProcess)
    first = process.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: process.pid != first)
    answer = client.get("/api/studies")
    assert answer.status_code in (200, 503)
    if answer.status_code == 503:
        assert answer.headers["retry-after"]
    wait_for(lambda: client.get("/api/studies").status_code == 200)


def test_even_the_owner_cannot_write_through_it(database_url: str) -> None:
    storage = open_storage(database_url)
    with pytest.raises(optuna.exceptions.StorageInternalError) as error:
        optuna.create_study(storage=storage)
    assert "read-only" in str(error.value.__cause__)


def test_the_read_only_role_cannot_write(dashboard_url: str) -> None:
    with psycopg2.connect(dashboard_url.replace("+psycopg2", "")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM optuna.studies")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute("DELETE FROM optuna.studies")


def test_the_process_ends_with_its_parent(database_url: str) -> None:
    process = DashboardProcess(database_url)
    process.start()
    wait_for(lambda: process.pid is not None)
    pid = process.pid
    assert pid is not None
    process.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not Path(process.socket_path).parent.exists()
