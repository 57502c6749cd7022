"""The audit log: one chain whoever writes, found broken whatever is done to it, seen by its project only."""

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.api.http.auth import COOKIE
from hpo_service.auth.principals import Scope, create_key, create_login_link
from hpo_service.local.home import Home
from hpo_service.local.local_admin import Credentials
from hpo_service.local.postgres import SUPERUSER, EmbeddedPostgres
from hpo_service.storage.tables import DEFAULT_PROJECT_ID
from tests import serving
from tests.audited import audited, forge, verdict
from tests.serving import Hpo

Sessions = sessionmaker[Session]


@pytest.fixture
def written(client: TestClient) -> TestClient:
    """Six rows."""
    for _ in range(6):
        client.post("/v1/login-links").raise_for_status()
    return client


def test_those_who_write_at_the_same_time_make_one_chain(
    client: TestClient, sessions: Sessions, engine: Engine, database_url: str
) -> None:
    other = serving.make_project(sessions, "other")
    theirs = serving.bearer(serving.make_key(sessions, other))

    def ask(number: int) -> int:
        return client.post("/v1/login-links", headers=theirs if number % 3 == 0 else {}).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(60))) == {201}
    for project, name, count in ((DEFAULT_PROJECT_ID, "default", 40), (other, "other", 20)):
        assert [row.number for row in audited(engine, project)] == list(range(1, count + 1))
        found = verdict(database_url, name)
        assert (found.broken, found.head.number) == (None, count)


_FORGERIES = {
    **{
        f"{column} changed": (f"UPDATE hpo.audit SET {column} = {value} WHERE number = 3", 3)
        for column, value in {
            "at": "at + interval '1 microsecond'",
            "who": "'hpo_key_99'",
            "key_id": "NULL",
            "action": "'create_key'",
            "object": "object || ' '",
            "outcome": "'refused'",
            "status": "status + 1",
            "request_id": "'x'",
            "client": "NULL",
            "details": "'[]'",
            "previous": "repeat('a', 64)",
            "hash": "repeat('a', 64)",
        }.items()
    },
    "one deleted": ("DELETE FROM hpo.audit WHERE number = 3", 3),
    "the first deleted": ("DELETE FROM hpo.audit WHERE number = 1", 1),
    "the last deleted": ("DELETE FROM hpo.audit WHERE number = 6", 6),
    "all deleted": ("DELETE FROM hpo.audit", 1),
    "two swapped": ("UPDATE hpo.audit SET number = CASE number WHEN 3 THEN -4 ELSE -3 END WHERE number IN (3, 4)", 3),
    "the rest moved up": ("DELETE FROM hpo.audit WHERE number = 3", 3),
    "the end forged": ("UPDATE hpo.audit_heads SET number = 5", 6),
}
_AFTERWARDS = {
    "two swapped": "UPDATE hpo.audit SET number = -number WHERE number < 0",
    "the rest moved up": "UPDATE hpo.audit SET number = number - 1 WHERE number > 3",
}


def test_whatever_is_forged_is_found(
    written: TestClient, postgres: EmbeddedPostgres, database_url: str, hpo: Hpo
) -> None:
    """Each on its own; afterwards the chain is put back as it was."""
    forge(postgres, database_url, "CREATE TABLE hpo.kept AS TABLE hpo.audit")
    forge(postgres, database_url, "CREATE TABLE hpo.kept_heads AS TABLE hpo.audit_heads")
    for what, (statement, broken) in _FORGERIES.items():
        forge(postgres, database_url, statement, *filter(None, [_AFTERWARDS.get(what)]))
        found = verdict(database_url)
        assert found.broken == broken, f"{what}: {found}"
        forge(
            postgres,
            database_url,
            "DELETE FROM hpo.audit",
            "INSERT INTO hpo.audit TABLE hpo.kept",
            "DELETE FROM hpo.audit_heads",
            "INSERT INTO hpo.audit_heads TABLE hpo.kept_heads",
        )
        assert verdict(database_url).broken is None
    out, _ = hpo("audit", "verify")
    assert [line.split()[:3] for line in out.splitlines()[1:]] == [["default", "6", "whole"]]
    known = out.split()[-1]
    hpo("audit", "verify", "--project", "default", "--known", known)
    forge(postgres, database_url, "UPDATE hpo.audit SET who = 'somebody' WHERE number = 3")
    out, said = hpo("audit", "verify", code=1)
    assert ("broken" in out, "row 3 of project default" in said) == (True, True)
    assert json.loads(hpo("audit", "verify", "-o", "json", code=1)[0])[0]["broken"] == 3
    _, said = hpo("audit", "verify", "--project", "default", "--known", "7:x", code=1)
    assert "no row of the audit log" in said
    _, said = hpo("audit", "verify", "--known", known, code=1)
    assert "--project" in said


_REST = "at, who, key_id, action, object, outcome, status, request_id, client, details"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE hpo.audit SET who = 'somebody'",
        "DELETE FROM hpo.audit",
        "TRUNCATE hpo.audit",
        "UPDATE hpo.audit_heads SET number = 0",
        "DELETE FROM hpo.audit_heads",
        "TRUNCATE hpo.audit_heads",
        "INSERT INTO hpo.audit_heads VALUES (1, 9, '')",
        "INSERT INTO hpo.audit SELECT * FROM hpo.audit WHERE number = 6",
        f"INSERT INTO hpo.audit SELECT project_id, 8, {_REST}, hash, hash FROM hpo.audit WHERE number = 6",
        f"INSERT INTO hpo.audit SELECT project_id, 7, {_REST}, previous, hash FROM hpo.audit WHERE number = 6",
    ],
)
def test_the_database_refuses_everything_but_the_next_row(
    written: TestClient, engine: Engine, postgres: EmbeddedPostgres, database_url: str, statement: str
) -> None:
    """The owner is not granted it, and triggers stop the superuser too."""
    stopped = r"never change|does not follow|duplicate key"
    with pytest.raises(DBAPIError, match=rf"permission denied|{stopped}"), engine.begin() as connection:
        connection.execute(text(statement))
    with pytest.raises(DBAPIError, match=stopped):
        forge(postgres, database_url, "SET LOCAL session_replication_role = origin", statement)
    assert verdict(database_url).head.number == 6


def test_the_owner_has_no_right_to_change_rows(engine: Engine) -> None:
    query = text("SELECT has_table_privilege('hpo', 'hpo.audit', :right)")
    with engine.connect() as connection:
        rights = {
            right: connection.scalar(query, {"right": right}) for right in ("SELECT", "INSERT", "UPDATE", "DELETE")
        }
    assert rights == {"SELECT": True, "INSERT": True, "UPDATE": False, "DELETE": False}
    assert SUPERUSER != "hpo"


def test_pages_and_filters(client: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        other = serving.bearer(create_key(session, DEFAULT_PROJECT_ID, "other"))
    for name in ("a", "b", "c"):
        client.post("/v1/studies", json=serving.spec(name)).raise_for_status()
        client.post(f"/v1/studies/{name}:cancel", headers=other).raise_for_status()
    first = client.get("/v1/audit", params={"page_size": "4"}).json()
    rest = client.get("/v1/audit", params={"page_token": first["next_page_token"]}).json()
    rows = [*first["items"], *rest["items"]]
    assert [row["number"] for row in rows] == [6, 5, 4, 3, 2, 1]
    assert rest["next_page_token"] is None
    assert all(later["previous"] == earlier["hash"] for later, earlier in pairwise(rows))

    def numbers(**query: Any) -> list[int]:
        return [row["number"] for row in client.get("/v1/audit", params=query).json()["items"]]

    assert numbers(action="create_study") == [5, 3, 1]
    assert numbers(key_id=rows[0]["key_id"]) == [6, 4, 2]
    assert numbers(since=rows[2]["at"]) == [6, 5, 4]
    assert numbers(since=rows[2]["at"], action="create_study", page_size=1) == [5]
    assert numbers(action="nothing") == []
    for query in ({"since": "2026-11-26T00:00:00"}, {"since": "soon"}, {"action": "A b"}, {"page_token": "x"}):
        assert client.get("/v1/audit", params=query).status_code == 400


def test_another_project_sees_nothing(client: TestClient, sessions: Sessions, database_url: str) -> None:
    other = serving.bearer(serving.make_key(sessions, serving.make_project(sessions, "other")))
    client.post("/v1/studies", json=serving.spec("canary")).raise_for_status()
    key_id = client.get("/v1/audit").json()["items"][0]["key_id"]
    for query in ({}, {"key_id": key_id}, {"action": "create_study"}, {"page_token": "99"}):
        assert client.get("/v1/audit", params=query, headers=other).json()["items"] == []
    client.post("/v1/studies/canary:cancel", headers=other)
    (theirs,) = client.get("/v1/audit", headers=other).json()["items"]
    assert (theirs["number"], theirs["action"], theirs["status"]) == (1, "cancel_study", 404)
    assert [row["number"] for row in client.get("/v1/audit").json()["items"]] == [1]


def test_only_who_may_read_it(client: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        auditor = serving.bearer(create_key(session, DEFAULT_PROJECT_ID, "auditor", [Scope.AUDIT_READ]))
        admin = serving.bearer(create_key(session, DEFAULT_PROJECT_ID, "boss", set(Scope) - {Scope.AUDIT_READ}))
    assert client.get("/v1/audit", headers=auditor).status_code == 200
    assert client.get("/v1/audit", headers=admin).status_code == 403


def test_no_secret_is_in_it(client: TestClient, sessions: Sessions, engine: Engine, database_url: str) -> None:
    key = client.post("/v1/keys", json={"label": "ci", "scopes": ["study:read", "promote"]}).json()
    rotated = client.post(f"/v1/keys/{key['id']}:rotate", json={}).json()
    link = client.post("/v1/login-links").json()["url"]
    client.get(link)
    client.post("/v1/keys", json={"label": key["key"], "scopes": ["Bearer abcdefgh"], "password": "hunter2"})
    client.post("/v1/promotions", json={"study": "postgresql://u:hunter2@h/d", "name": f"token={key['key']}"})
    client.post(f"/v1/studies/{key['key']}:pause")
    client.delete(f"/v1/studies/password=hunter2?key={key['key']}")
    client.post("/v1/projects", json={"name": "x" * 5000})
    with Credentials(database_url) as credentials:
        made = credentials.create_key("cli", [Scope.STUDY_READ], project="default", lifetime_seconds=None)
        other = credentials.login_link(key["key"], "http://x")
    with engine.connect() as connection:
        kept = "\n".join(map(str, connection.execute(text("SELECT audit::text FROM hpo.audit"))))
    assert len(audited(engine)) >= 10
    cookie = client.cookies[COOKIE]
    tokens = [one.partition("token=")[2] for one in (link, other)]
    for secret in (*(one.split("_", 3)[3] for one in (key["key"], rotated["key"], made.key)), *tokens, cookie):
        assert secret not in kept
    assert "hunter2" not in kept
    assert "abcdefgh" not in kept
    assert max(map(len, kept.splitlines())) < 5000


def test_logging_in_and_what_a_foreign_page_tries(
    anonymous: TestClient, sessions: Sessions, engine: Engine, database_url: str
) -> None:
    with sessions.begin() as session:
        link = create_login_link(session, create_key(session, DEFAULT_PROJECT_ID, "browser"), "")
    assert anonymous.get(link).status_code == 200
    assert anonymous.get(link).status_code == 401
    (row,) = audited(engine)
    assert (row.action, row.object, row.outcome, row.details) == ("log_in", "login", "done", {"by": "link"})
    assert anonymous.post("/v1/login-links", headers={"Origin": "https://evil.test"}).status_code == 403
    assert audited(engine)[1:] != []
    row = audited(engine)[-1]
    assert (row.who, row.object, row.outcome, row.status) == (f"hpo_key_{row.key_id}", "login-links", "refused", 403)
    count = len(audited(engine))
    anonymous.cookies.clear()
    anonymous.post("/v1/login-links")
    anonymous.post("/v1/login-links", headers=serving.bearer("hpo_key_1_" + "a" * 43))
    assert len(audited(engine)) == count  # of nobody known
    assert verdict(database_url).broken is None


def test_what_is_done_on_the_service_s_machine(database_url: str, engine: Engine, hpo: Hpo, tmp_path: Path) -> None:
    hpo("project", "create", "second")
    key, _ = hpo("key", "create", "ci", "--project", "second")
    hpo("key", "rotate", "ci", "--project", "second")
    hpo("key", "revoke", key.split("_")[2], "--project", "second")
    hpo("promotion", "approval", "on", "--project", "second")
    hpo("key", "list", "--project", "second")
    hpo("project", "list")
    home = Home(tmp_path)
    with Credentials(database_url) as credentials:
        credentials.ensure_admin_key(home)
        credentials.ensure_admin_key(home)
        credentials.login_link(home.key() or "", "")
    second = [row for row in audited(engine, 2) if row.action != "set_quota"]
    assert [row.action for row in second] == ["create_key", "rotate_key", "revoke_key", "set_approval"]
    first = audited(engine)
    assert [(row.action, row.object) for row in first] == [
        ("create_project", "projects/second"),
        ("create_key", f"keys/{(home.key() or '').split('_')[2]}"),
        ("create_login_link", f"keys/{(home.key() or '').split('_')[2]}"),
    ]
    assert {(row.key_id, row.status, row.client, row.outcome) for row in (*first, *second)} == {
        (None, None, None, "done")
    }
    assert all(" on " in row.who for row in first)


def test_the_list_on_the_command_line(
    hpo: Hpo, written: TestClient, monkeypatch: pytest.MonkeyPatch, engine: Engine
) -> None:
    class Connected:
        def __enter__(self) -> "Connected":
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def pages(self, path: str, **query: Any) -> Any:
            yield from written.get(path, params=query).json()["items"]

    monkeypatch.setattr("hpo_service.cli.audit.connect", Connected)
    out, _ = hpo("audit", "list", "--since", "1h", "--action", "create_login_link", "--limit", "2")
    lines = [line.split() for line in out.splitlines()[1:]]
    assert [(line[0], line[3], line[4]) for line in lines] == [
        ("6", "create_login_link", "login-links"),
        ("5", "create_login_link", "login-links"),
    ]
    assert len(json.loads(hpo("audit", "list", "-o", "json")[0])) == 6
