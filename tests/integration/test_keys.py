"""API keys over HTTP and on the command line: made, used, rotated, revoked; and projects."""

import json
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.auth.principals import Scope, create_key, parse_key
from hpo_service.local.home import Home
from hpo_service.local.local_admin import Credentials
from hpo_service.storage.tables import DEFAULT_PROJECT_ID
from tests import serving
from tests.dispatching import turn_until
from tests.serving import Hpo

Sessions = sessionmaker[Session]
READER = {"label": "reader", "scopes": ["study:read"]}


def made(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/keys", json=READER | body)
    assert answer.status_code == 201, answer.text
    key: dict[str, Any] = answer.json()
    return key


def test_a_key_is_made_used_and_revoked(client: TestClient, sessions: Sessions) -> None:
    key = made(client)
    assert (key["state"], key["expires_at"], key["last_used_at"]) == ("live", None, None)
    theirs = serving.bearer(key["key"])
    assert client.get("/v1/studies", headers=theirs).status_code == 200
    shown = client.get("/v1/keys").json()["items"][0]
    assert (shown["label"], shown["scopes"], "key" in shown) == ("reader", ["study:read"], False)
    assert shown["last_used_at"] is not None
    assert key["key"] not in client.get("/v1/keys").text
    assert client.delete(f"/v1/keys/{key['id']}").json()["state"] == "revoked"
    assert client.get("/v1/studies", headers=theirs).status_code == 401
    again = client.delete(f"/v1/keys/{key['id']}")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert client.delete("/v1/keys/999").status_code == 404


def test_use_is_written_at_most_once_a_minute(client: TestClient, sessions: Sessions) -> None:
    def used() -> object:
        with sessions() as session:
            return session.execute(text("SELECT last_used_at FROM hpo.api_keys")).scalar_one()

    client.get("/v1/studies")
    first = used()
    client.get("/v1/studies")
    assert used() == first
    with sessions.begin() as session:
        session.execute(text("UPDATE hpo.api_keys SET last_used_at = now() - interval '61 seconds'"))
    client.get("/v1/studies")
    assert used() != first


def test_a_key_ends_by_itself(client: TestClient, sessions: Sessions) -> None:
    key = made(client, expires_in_seconds=3600)
    theirs = serving.bearer(key["key"])
    link = client.post("/v1/login-links", headers=theirs).json()["url"]
    with sessions.begin() as session:
        session.execute(text("UPDATE hpo.api_keys SET expires_at = now() WHERE id = :id"), {"id": key["id"]})
    assert client.get("/v1/studies", headers=theirs).status_code == 401
    assert client.get(link).status_code == 401
    assert client.get("/v1/keys").json()["items"][0]["state"] == "expired"


def test_no_key_gives_what_it_does_not_have(client: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        admin = serving.bearer(create_key(session, DEFAULT_PROJECT_ID, "boss", [Scope.ADMIN]))
        promoter = parse_key(create_key(session, DEFAULT_PROJECT_ID, "promoter", [Scope.PROMOTE]))
    assert promoter is not None
    refused = [
        client.post("/v1/keys", json=READER, headers=admin),
        client.post(f"/v1/keys/{promoter[0]}:rotate", json={}, headers=admin),
    ]
    for answer, scope in zip(refused, ("study:read", "promote"), strict=True):
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert scope in answer.json()["detail"]
    assert client.post("/v1/keys", json=READER | {"scopes": ["admin"]}, headers=admin).status_code == 201


def test_rotation_leaves_two_keys_and_then_one(client: TestClient, sessions: Sessions) -> None:
    first = made(client, expires_in_seconds=86400)
    taken = client.post("/v1/keys", json=READER)
    assert (taken.status_code, "hpo key rotate reader" in taken.json()["detail"]) == (409, True)
    second = client.post(f"/v1/keys/{first['id']}:rotate", json={"overlap_seconds": 60}).json()
    assert (second["label"], second["scopes"]) == ("reader", ["study:read"])
    assert second["replaces"]["id"] == first["id"]
    assert second["created_at"] < second["replaces"]["expires_at"] < first["expires_at"] < second["expires_at"]
    for key in (first, second):
        assert client.get("/v1/studies", headers=serving.bearer(key["key"])).status_code == 200
    third = client.post(f"/v1/keys/{second['id']}:rotate", json={})
    assert (third.status_code, "2 keys have the label" in third.json()["detail"]) == (409, True)
    client.delete(f"/v1/keys/{first['id']}")
    assert client.post(f"/v1/keys/{second['id']}:rotate", json={}).status_code == 201


def test_what_is_no_key_is_refused(client: TestClient) -> None:
    for body in (
        {"label": "a b", "scopes": ["promote"]},
        {"label": "x", "scopes": []},
        {"label": "x", "scopes": ["everything"]},
        {"label": "x", "scopes": ["promote"], "expires_in_seconds": 59},
        {"label": "x", "scopes": ["promote"], "secret": "mine"},
    ):
        answer = client.post("/v1/keys", json=body)
        assert answer.status_code == 422, body
        assert answer.json()["errors"]


def test_admins_see_the_keys_of_their_project_only(client: TestClient, sessions: Sessions) -> None:
    mine = made(client)
    assert client.post("/v1/projects", json={"name": "second"}).status_code == 201
    again = client.post("/v1/projects", json={"name": "second"})
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert [one["name"] for one in client.get("/v1/projects").json()["items"]] == ["default", "second"]
    with sessions.begin() as session:
        second = session.execute(text("SELECT id FROM hpo.projects WHERE name = 'second'")).scalar_one()
    theirs: dict[str, Any] = {"headers": serving.bearer(serving.make_key(sessions, second))}
    assert [one["label"] for one in client.get("/v1/keys", **theirs).json()["items"]] == ["test"]
    assert client.delete(f"/v1/keys/{mine['id']}", **theirs).status_code == 404
    assert client.post(f"/v1/keys/{mine['id']}:rotate", json={}, **theirs).status_code == 404
    for answer in (client.get("/v1/projects", **theirs), client.post("/v1/projects", json={"name": "x"}, **theirs)):
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_a_study_of_another_project_is_dispatched_under_its_name(client: TestClient, sessions: Sessions) -> None:
    client.post("/v1/projects", json={"name": "second"}).raise_for_status()
    with sessions.begin() as session:
        second = session.execute(text("SELECT id FROM hpo.projects WHERE name = 'second'")).scalar_one()
    theirs: dict[str, Any] = {"headers": serving.bearer(serving.make_key(sessions, second))}
    small = serving.spec(budget={"max_trials": 1}, baseline=None)
    client.post("/v1/studies", json=small, **theirs).raise_for_status()
    client.post("/v1/studies", json=small).raise_for_status()
    dispatcher, _ = serving.make_dispatcher(sessions)
    turn_until(
        dispatcher,
        lambda: all(client.get("/v1/studies/first", **who).json()["state"] == "completed" for who in ({}, theirs)),
    )
    with sessions() as session:
        names = set(session.scalars(text("SELECT study_name FROM optuna.studies")))
    assert names == {"first", "second/first"}


def test_keys_on_the_command_line(hpo: Hpo, client: TestClient) -> None:
    hpo("project", "create", "second")
    out, _ = hpo("project", "list")
    assert "second" in out
    key, said = hpo("key", "create", "ci", "--project", "second", "--expires", "90d", "--scope", "study:read")
    assert ("may study:read; it ends at" in said, "hpo_key" in said) == (True, False)
    theirs: dict[str, Any] = {"headers": serving.bearer(key.strip())}
    assert client.get("/v1/studies", **theirs).status_code == 200
    other, said = hpo("key", "rotate", "ci", "--project", "second", "--overlap", "12h")
    assert "which ends at" in said
    number = parse_key(key.strip())
    assert number is not None
    hpo("key", "revoke", str(number[0]), "--project", "second")
    assert client.get("/v1/studies", **theirs).status_code == 401
    assert client.get("/v1/studies", headers=serving.bearer(other.strip())).status_code == 200
    out, _ = hpo("key", "list", "--project", "second")
    assert ("revoked" in out, "live" in out) == (True, True)
    _, said = hpo("key", "create", "x", "--expires", "soon", code=1)
    assert "no span of time" in said


def test_quotas_on_the_command_line(hpo: Hpo, client: TestClient) -> None:
    hpo("project", "create", "second")
    out, _ = hpo("project", "quota", "second", "--parallel-gpus", "4", "--stored-bytes", "1.5GB")
    assert ("0 / 4" in out, "? / 1.5 GB" in out) == (True, True)
    out, _ = hpo("project", "quota", "second", "--studies", "2", "--parallel-gpus", "none", "-o", "json")
    assert json.loads(out)["limits"] == {
        "parallel_gpus": None,
        "gpu_hours_month": None,
        "studies": 2,
        "stored_bytes": 1_500_000_000,
    }
    assert client.get("/v1/projects/second/quota").json() == json.loads(out)
    out, _ = hpo("project", "list")
    assert ("0 / 2" in out, "0.0" in out) == (True, True)
    _, said = hpo("project", "quota", "nobodys", code=1)
    assert "no project 'nobodys'" in said
    _, said = hpo("project", "quota", "second", "--studies", "many", code=1)
    assert "--studies 'many' is no limit" in said
    _, said = hpo("key", "create", "x", "--project", "none", code=1)
    assert "no project 'none'" in said
    _, said = hpo("key", "create", "a b", code=1)
    assert "no name of a key" in said
    hpo("promotion", "approval", "on", "--project", "second")
    out, _ = hpo("project", "list")
    assert [line.split()[1] for line in out.splitlines()[1:]] == ["no", "yes"]


def test_the_admin_key_of_this_machine_is_rotated_in_its_place(database_url: str, tmp_path: Path) -> None:
    home = Home(tmp_path)
    with Credentials(database_url) as credentials:
        assert credentials.ensure_admin_key(home)
        before = home.key()
        made = credentials.rotate_key("admin", home, project="default", overlap_seconds=0)
        assert home.key() == made.key != before
        assert (set(made.scopes), made.expires_at) == (set(Scope), None)
        assert not credentials.ensure_admin_key(home)
