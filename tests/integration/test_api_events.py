"""Server-sent events, search spaces and the schema."""

import json
import threading
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi.testclient import TestClient
from ruamel.yaml import YAML
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.client import Client
from hpo_service.serve import listen
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


def test_a_live_stream_follows_and_survives_reconnecting(engine: Engine, sessions: Sessions, root: Any) -> None:
    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    app = serving.serve(engine, serving.settings(root)).app
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        with Client(url, serving.make_key(sessions)) as client:
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
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


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
