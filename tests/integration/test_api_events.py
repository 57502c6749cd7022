"""Server-sent events, search spaces and the schema."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from ruamel.yaml import YAML
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.api.process import listen
from hpo_service.client.http import Client
from tests import serving
from tests.dispatching import turn_until
from tests.serving import spec

Sessions = sessionmaker[Session]


def frames(body: str) -> list[dict[str, Any]]:
    found = []
    for block in body.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append({"id": int(fields["id"]), "event": fields["event"], "data": json.loads(fields["data"])})
    return found


def run_to_end(client: TestClient, sessions: Sessions) -> None:
    client.post("/v1/studies", json=spec())
    dispatcher, _ = serving.make_dispatcher(sessions)
    turn_until(dispatcher, lambda: client.get("/v1/studies/first").json()["state"] == "completed")


def test_the_stream_tells_everything_and_ends(client: TestClient, sessions: Sessions) -> None:
    run_to_end(client, sessions)
    answer = client.get("/v1/studies/first/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = frames(answer.text)
    ids = [frame["id"] for frame in found]
    assert ids == sorted(set(ids))
    assert found[-1]["event"] == "study.state"
    assert found[-1]["data"]["payload"]["state"] == "completed"
    assert found[-1]["data"]["kind"] == "study.state"
    middle = ids[len(ids) // 2]
    resumed = frames(client.get("/v1/studies/first/events", headers={"Last-Event-ID": str(middle)}).text)
    assert resumed == [frame for frame in found if frame["id"] > middle]
    assert frames(client.get("/v1/studies/first/events", params={"after": middle}).text) == resumed
    assert frames(client.get("/v1/studies/first/events", headers={"Last-Event-ID": str(ids[-1])}).text) == []
    assert client.get("/v1/studies/first/events", headers={"Last-Event-ID": "x"}).status_code == 400


def test_a_deleted_study_ends_its_stream(client: TestClient, sessions: Sessions) -> None:
    run_to_end(client, sessions)
    with sessions.begin() as session:
        session.execute(text("UPDATE hpo.studies SET deleted_at = now()"))
    assert client.get("/v1/studies/first/events").status_code == 404


@pytest.fixture
def live(engine: Engine, sessions: Sessions, root: Any) -> Iterator[tuple[Client, FastAPI, str]]:
    """A client of a service that listens, the service and its address."""
    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    app = serving.serve(engine, serving.settings(root)).app
    assert isinstance(app, FastAPI)
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        with Client(url, serving.make_key(sessions)) as client:
            yield client, app, url
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


def test_a_live_stream_follows_and_survives_reconnecting(live: tuple[Client, FastAPI, str], sessions: Sessions) -> None:
    client, _, url = live
    client.create_study(spec())
    with client.events("first", 0) as events:
        dispatcher, _ = serving.make_dispatcher(sessions)
        turn_until(dispatcher, lambda: client.get("/v1/studies/first")["state"] != "queued")
        first = next(events)
    assert first.kind == "study.state"
    turn_until(dispatcher, lambda: client.get("/v1/studies/first")["state"] == "completed")
    with client.events("first", first.id) as events:
        rest = list(events)
    assert rest[0].id > first.id
    assert rest[-1].kind == "study.state"
    assert httpx.get(f"{url}/v1/studies/first/events").status_code == 401


@pytest.mark.parametrize("path", ["/v1/studies/first/events", "/console/changes"])
def test_a_key_holds_so_many_streams_open(
    live: tuple[Client, FastAPI, str], sessions: Sessions, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    client, app, url = live
    monkeypatch.setattr("hpo_service.api.middleware.stream_limits.MOST", 2)
    client.create_study(spec())
    key, other = (serving.bearer(serving.make_key(sessions)) for _ in range(2))

    def answered(headers: dict[str, str]) -> httpx.Response:
        with httpx.stream("GET", f"{url}{path}", headers=headers, timeout=10) as answer:
            return answer

    with httpx.stream("GET", f"{url}{path}", headers=key), httpx.stream("GET", f"{url}{path}", headers=key):
        refused = answered(key)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "10")
        assert answered(other).status_code == 200
    deadline = time.monotonic() + 10
    while len(app.state.open_streams):
        assert time.monotonic() < deadline, "a stream that was left still counts"
        time.sleep(0.05)
    assert answered(key).status_code == 200


def test_search_spaces_are_served_with_their_reasons(client: TestClient) -> None:
    spaces = client.get("/v1/search-spaces").json()["items"]
    assert {"quick", "standard", "wide", "qlora", "small-data", "large-zero3"} == {space["name"] for space in spaces}
    one = client.get("/v1/search-spaces/standard").json()
    assert one in spaces
    assert "#" in one["source"]
    assert YAML(typ="safe").load(one["source"])["space"] == one["document"]["space"]


@pytest.mark.parametrize("name", ["quick", "standard", "small-data"])
def test_a_preset_makes_a_study(client: TestClient, name: str) -> None:
    answer = client.post("/v1/studies", json=spec(name, preset=name, space=None, baseline=None, search=None))
    assert answer.status_code == 201, answer.text


def test_the_schema_describes_a_study(client: TestClient) -> None:
    schema = client.get("/v1/schemas/study-spec.json").json()
    assert {"metadata", "model", "data"} <= set(schema["required"])
    assert schema["additionalProperties"] is False
