"""Every answer has an id, which what is logged on its way carries; nothing that is secret is logged."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.api.http.auth import COOKIE, create_login_link
from hpo_service.local.local_admin import Credentials
from tests import dispatching, serving
from trainer.common.logs import make_formatter

Sessions = sessionmaker[Session]
HEADER = "X-Request-ID"


class Log:
    """What is logged, as it would be written."""

    def __init__(self) -> None:
        self.written = io.StringIO()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.written.getvalue().splitlines()]

    def of(self, logger: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["logger"] == logger]


@pytest.fixture
def log() -> Iterator[Log]:
    """Everything that the service logs, as JSON."""
    found = Log()
    handler = logging.StreamHandler(found.written)
    handler.setFormatter(make_formatter("json"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield found
    root.removeHandler(handler)
    root.setLevel(level)


def test_a_line_for_every_request(client: TestClient, log: Log) -> None:
    answer = client.get("/v1/studies/nothing?x=1", headers={HEADER: "from-the-proxy.1"})
    assert answer.headers[HEADER] == "from-the-proxy.1"
    (line,) = log.of("hpo_service.api.middleware.request_log")
    assert (
        line.items()
        >= {
            "request_id": "from-the-proxy.1",
            "method": "GET",
            "path": "/v1/studies/nothing",
            "status": 404,
            "key_id": 1,
        }.items()
    )
    assert line["seconds"] >= 0


def test_ids_that_could_forge_lines_are_not_taken(client: TestClient) -> None:
    for given in ("x" * 65, "a b", "a\u00e9", ""):
        told = client.get("/healthz", headers=[(HEADER.encode(), given.encode("latin-1"))]).headers[HEADER]
        assert told != given
        assert len(told) == 16
    assert client.get("/healthz").headers[HEADER] != client.get("/healthz").headers[HEADER]


def test_probes_are_not_logged(client: TestClient, log: Log) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        client.get(path)
    assert log.of("hpo_service.api.middleware.request_log") == []


def test_an_unexpected_error_is_found_by_its_id(client: TestClient, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("password=hunter2 is in no log")

    monkeypatch.setattr("hpo_service.services.studies.read.list_studies", broken)
    answer = client.get("/v1/studies")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    (line,) = [line for line in log.lines if line["level"] == "error"]
    assert line["request_id"] == answer.headers[HEADER]
    assert "RuntimeError" in line["exception"]
    assert "hunter2" not in log.written.getvalue() + answer.text


def test_no_credential_is_logged(client: TestClient, sessions: Sessions, database_url: str, log: Log) -> None:
    key = serving.make_key(sessions)
    with Credentials(database_url) as credentials:
        link = credentials.login_link(key, "")
    with sessions.begin() as session:
        other = create_login_link(session, key, "")
    headers = serving.bearer(key)
    client.get("/v1/studies", headers=headers)
    client.get(f"/v1/studies/{key}", headers=headers)
    client.get(link)
    cookie = client.cookies[COOKIE]
    client.get("/", headers={"Cookie": f"{COOKIE}={cookie}"})
    client.post("/v1/studies", json={"metadata": {"name": key}}, headers=headers)
    with sessions.begin() as session:
        session.execute(text("UPDATE hpo.api_keys SET revoked_at = now()"))
    client.get("/v1/studies", headers=headers)
    client.get(other)
    said = log.written.getvalue()
    secrets = (key.split("_", 3)[3], link.partition("token=")[2], other.partition("token=")[2], cookie)
    assert len(log.of("hpo_service.api.middleware.request_log")) >= 7
    assert not any(secret in said for secret in secrets)


def test_the_dispatcher_tells_of_slices_with_their_ids(sessions: Sessions, log: Log) -> None:
    dispatcher, _ = dispatching.make(sessions)
    study = dispatching.post_study(sessions)
    dispatching.turn_until(dispatcher, lambda: dispatching.state_of(sessions, study) == "completed")
    lines = log.of("hpo_service.dispatcher.telemetry.event_log")
    started = [line for line in lines if line["message"] == "slice.started"]
    with sessions() as session:
        attempts = {tuple(row) for row in session.execute(text("SELECT slice_id, attempt FROM hpo.attempts"))}
    assert {(line["slice_id"], line["attempt"]) for line in started} == attempts
    assert all(line["study_id"] == study and line["worker"] for line in started)
    assert [line["state"] for line in lines if line["message"].startswith("study.state")] == [
        "queued",
        "running",
        "completed",
    ]
