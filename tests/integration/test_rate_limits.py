"""Limits of the whole service: refused before anything is done, told as a problem, and obeyed by clients."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.client.http import Client
from tests import serving

Sessions = sessionmaker[Session]


def test_too_many_requests_are_refused_and_leave_no_trace(engine: Engine, sessions: Sessions, root: Path) -> None:
    client = serving.serve(engine, serving.settings(root, requests_per_second=0.1))
    client.headers.update(serving.bearer(serving.make_key(sessions)))
    assert client.get("/v1/studies").status_code == 200
    refused = client.post("/v1/projects", json={"name": "second"})
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
    assert refused.headers["content-type"] == "application/problem+json"
    assert 1 <= int(refused.headers["Retry-After"]) <= 10
    assert "HPO_REQUESTS_PER_SECOND" in refused.json()["detail"]
    for path in ("/healthz", "/readyz", "/metrics"):
        assert client.get(path).status_code == 200
    other = serving.bearer(serving.make_key(sessions))
    assert client.get("/v1/studies", headers=other).status_code == 200
    with sessions() as session:
        assert session.scalar(text("SELECT count(*) FROM hpo.projects")) == 1
        assert session.scalar(text("SELECT count(*) FROM hpo.audit")) == 0


def test_wrong_keys_and_login_links_are_counted_by_address(engine: Engine, sessions: Sessions, root: Path) -> None:
    client = serving.serve(engine, serving.settings(root, failed_logins_per_minute=2))
    mine = serving.bearer(serving.make_key(sessions))
    assert client.get("/v1/studies", headers=mine).status_code == 200
    wrong = serving.bearer(f"hpo_key_1_{'x' * 43}")
    assert [client.get("/v1/studies", headers=wrong).status_code for _ in range(3)] == [401, 401, 429]
    assert client.get("/v1/studies", headers=mine).status_code == 200
    assert client.get("/v1/studies").status_code == 401
    logins = [client.get("/login", params={"token": str(number)}) for number in range(3)]
    assert [answer.status_code for answer in logins] == [401, 401, 429]
    assert "HPO_FAILED_LOGINS_PER_MINUTE" in logins[-1].json()["detail"]


@pytest.fixture
def address(engine: Engine, root: Path) -> Iterator[str]:
    """A service that listens, and answers a key twice a second at most, after the first twenty."""
    app = serving.serve(engine, serving.settings(root, requests_per_second=2)).app
    assert isinstance(app, FastAPI)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    app.state.stopping.set()
    server.should_exit = True
    thread.join(timeout=30)
    listener.close()


def test_a_client_waits_and_repeats(address: str, sessions: Sessions) -> None:
    with Client(address, serving.make_key(sessions)) as client:
        begun = time.monotonic()
        for _ in range(23):
            client.get("/v1/studies")
        assert time.monotonic() - begun > 0.9
        assert client.create_study(serving.spec())["state"] == "queued"
