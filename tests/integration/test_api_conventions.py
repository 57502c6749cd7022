"""What holds for every route of a kind: repetition, pages, and changes that are meant for what was seen."""

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine, event, text
from sqlalchemy.orm import Session, sessionmaker

from tests import serving
from tests.dispatching import turn_until

Sessions = sessionmaker[Session]
Json = dict[str, Any]
#: their answers hold a secret, which is kept nowhere; that a label has one live key refuses a second one
_SECRET = {"create_key", "rotate_key", "create_login_link"}
#: either done or refused, whoever else asks
_STEERING = {
    "pause_study", "resume_study", "stop_study", "cancel_study",
    "drain_worker", "quarantine_worker", "release_worker",
}  # fmt: skip
#: one figure, which parts would say nothing of
_WHOLE = {"get_pareto"}
#: what is changed never was anything else
_ONE_WAY = {"revoke_key"}


@pytest.fixture
def operations(anonymous: TestClient) -> list[tuple[str, Json]]:
    """Method and operation of every documented route."""
    app = anonymous.app
    assert isinstance(app, FastAPI)
    found = [
        (method, operation) for methods in app.openapi()["paths"].values() for method, operation in methods.items()
    ]
    assert len(found) > 50
    return found


def takes(operation: Json, *names: str) -> bool:
    parameters = {parameter["name"].lower() for parameter in operation.get("parameters", [])}
    return parameters.issuperset(names)


def test_every_creation_can_be_repeated(operations: list[tuple[str, Json]]) -> None:
    """A new route that creates something: take `IdempotencyKey` and keep the answer with `Repetition`."""
    posts = {
        operation["operationId"]: operation
        for method, operation in operations
        if method == "post" and {"201", "202"} & set(operation["responses"])
    }
    excused = _SECRET | _STEERING
    assert excused <= set(posts)
    for name, operation in posts.items():
        assert takes(operation, "idempotency-key") is (name not in excused), name


def test_every_list_has_pages(anonymous: TestClient, operations: list[tuple[str, Json]]) -> None:
    app = anonymous.app
    assert isinstance(app, FastAPI)
    schemas = app.openapi()["components"]["schemas"]
    lists = 0
    for method, operation in operations:
        content = operation["responses"].get("200", {}).get("content", {}).get("application/json", {})
        schema = content.get("schema", {})
        schema = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        assert schema.get("type") != "array", operation["operationId"]
        if method == "get" and "items" in schema.get("properties", {}) and operation["operationId"] not in _WHOLE:
            lists += 1
            assert takes(operation, "page_size", "page_token"), operation["operationId"]
            assert "next_page_token" in schema["properties"], operation["operationId"]
    assert lists >= 12


def test_every_change_can_be_bound_to_what_was_seen(operations: list[tuple[str, Json]]) -> None:
    """A new route that changes or removes what others may change as well: take `IfMatch`, or `RequiredMatch`."""
    bound = set()
    for method, operation in operations:
        name = operation["operationId"]
        if takes(operation, "if-match"):
            bound.add(name)
            assert {"412", "428"} & set(operation["responses"]) == ({"412", "428"} if method == "put" else {"412"}), (
                name
            )
        else:
            assert method not in ("patch", "put", "delete") or name in _ONE_WAY, name
    assert bound == {
        "extend_study", "delete_study", "pause_study", "resume_study", "stop_study", "cancel_study",
        "roll_back_promotion", "set_quota",
    }  # fmt: skip


def test_pages_of_search_spaces_join(client: TestClient) -> None:
    whole = client.get("/v1/search-spaces").json()
    assert whole["next_page_token"] is None
    joined: list[Json] = []
    token: str | None = None
    for _ in whole["items"]:
        query: dict[str, str] = {"page_size": "4"} | ({"page_token": token} if token else {})
        page = client.get("/v1/search-spaces", params=query).json()
        joined += page["items"]
        token = page["next_page_token"]
        if token is None:
            break
    assert (joined, len(joined) > 4) == (whole["items"], True)


@pytest.mark.parametrize("kind", ["pause", "stop", "cancel"])
def test_an_order_is_for_the_study_that_was_seen(client: TestClient, kind: str) -> None:
    client.post("/v1/studies", json=serving.spec()).raise_for_status()
    seen = {"If-Match": client.get("/v1/studies/first").headers["ETag"]}
    client.patch("/v1/studies/first", json={"budget": {"max_trials": 9}}).raise_for_status()
    late = client.post(f"/v1/studies/first:{kind}", headers=seen)
    assert (late.status_code, late.json()["code"]) == (412, "precondition_failed")
    assert client.get("/v1/studies/first").json()["pending"] == ["create", "extend"]
    fresh = {"If-Match": f'"other", {client.get("/v1/studies/first").headers["ETag"]}'}
    assert client.post(f"/v1/studies/first:{kind}", headers=fresh).status_code == 202


def test_a_deletion_spares_a_new_study_of_the_same_name(client: TestClient, sessions: Sessions) -> None:
    client.post("/v1/studies", json=serving.spec()).raise_for_status()
    seen = {"If-Match": client.get("/v1/studies/first").headers["ETag"]}
    with sessions.begin() as session:
        session.execute(text("UPDATE hpo.studies SET state = 'cancelled', deleted_at = now()"))
    client.post("/v1/studies", json=serving.spec()).raise_for_status()
    with sessions.begin() as session:
        session.execute(text("UPDATE hpo.studies SET state = 'cancelled'"))
    late = client.delete("/v1/studies/first", headers=seen)
    assert (late.status_code, late.json()["code"]) == (412, "precondition_failed")
    now = {"If-Match": client.get("/v1/studies/first").headers["ETag"]}
    assert client.delete("/v1/studies/first", headers=now).status_code == 202


@pytest.fixture
def promoted(client: TestClient, sessions: Sessions, root: Path) -> TestClient:
    """A client with three versions of the promotion `bot`."""
    client.post("/v1/studies", json=serving.spec(budget={"max_trials": 1}, baseline=None)).raise_for_status()
    dispatcher, _ = serving.make_dispatcher(sessions)
    turn_until(dispatcher, lambda: client.get("/v1/studies/first").json()["state"] == "completed")
    serving.keep_snapshot(root, sessions, 0)
    for _ in range(3):
        client.post("/v1/promotions", json={"study": "first", "name": "bot"}).raise_for_status()
    return client


def test_two_who_roll_back_go_back_once(promoted: TestClient) -> None:
    seen = {"If-Match": promoted.get("/v1/promotions/bot/latest").headers["ETag"]}
    first = promoted.post("/v1/promotions/bot:rollback", json={}, headers=seen | {"Idempotency-Key": "once"})
    assert (first.status_code, first.json()["rollback_of"]) == (201, 2)
    second = promoted.post("/v1/promotions/bot:rollback", json={}, headers=seen)
    assert (second.status_code, second.json()["code"]) == (412, "precondition_failed")
    again = promoted.post("/v1/promotions/bot:rollback", json={}, headers=seen | {"Idempotency-Key": "once"})
    assert (again.status_code, again.json()) == (201, first.json())
    assert promoted.get("/v1/promotions/bot/latest").json()["version"] == 4


def test_projects_and_path_checks_are_made_once(client: TestClient, sessions: Sessions) -> None:
    key = {"Idempotency-Key": "once"}
    made = [client.post("/v1/projects", json={"name": "second"}, headers=key) for _ in range(2)]
    assert [answer.status_code for answer in made] == [201, 201]
    assert made[0].json() == made[1].json()
    other = client.post("/v1/projects", json={"name": "third"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    asked = [client.post("/v1/path-checks", headers={"Idempotency-Key": "paths"}) for _ in range(2)]
    assert [answer.status_code for answer in asked] == [202, 202]
    assert asked[0].json() == asked[1].json()


def test_an_answer_is_of_one_moment(client: TestClient, engine: Engine) -> None:
    """What is wanted is done while the study is being read: it is shown as wanted or as done, not as neither."""
    client.post("/v1/studies", json=serving.spec()).raise_for_status()

    wanted = [True]

    def do_what_is_wanted(*details: Any) -> None:
        statement = details[2]
        if wanted and "FROM hpo.studies" in statement:
            wanted.clear()
            with engine.begin() as other:
                other.execute(text("UPDATE hpo.intents SET done_at = now()"))
                other.execute(text("UPDATE hpo.studies SET state = 'running'"))

    event.listen(engine, "after_cursor_execute", do_what_is_wanted)
    during = client.get("/v1/studies/first").json()
    assert (during["state"], during["pending"]) == ("queued", ["create"])
    after = client.get("/v1/studies/first").json()
    assert (after["state"], after["pending"]) == ("running", [])
