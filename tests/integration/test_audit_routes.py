"""Every route that changes something leaves a row in the audit log, in the transaction of the change."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.api.http.audit_trail import LOOKS_ONLY, SAFE_METHODS
from hpo_service.auth.principals import Scope, create_key, create_login_link
from hpo_service.storage.queries import audit, promotions
from hpo_service.storage.tables import DEFAULT_PROJECT_ID, Worker
from tests import serving
from tests.audited import audited, contents
from tests.integration.test_api_scopes import routes, wanted
from tests.promoted import end_study, promote
from tests.serving import Json, spec
from tests.tenants import Answer

Sessions = sessionmaker[Session]
_NOTHING = "999999"


@dataclass
class Stage:
    """A service with something of everything, and a second key that may approve."""

    client: TestClient
    sessions: Sessions
    approver: dict[str, str]
    browser: TestClient  #: somebody who is logged in

    def post(self, path: str, body: Json | None = None, headers: dict[str, str] | None = None) -> Answer:
        return self.client.post(path, json=body, headers=headers)

    def needs_approval(self, needed: bool) -> None:
        with self.sessions.begin() as session:
            promotions.set_approval(session, DEFAULT_PROJECT_ID, needed)

    def newest_key(self) -> int:
        return int(self.client.get("/v1/keys").json()["items"][0]["id"])


def _approve(stage: Stage) -> Answer:
    stage.needs_approval(True)
    made = stage.client.get("/v1/promotions").json()["items"][0]
    if made["effective"]:
        made = promote(stage.client)
    return stage.post(f"/v1/promotions/bot/{made['version']}:approve", headers=stage.approver)


def _set_quota(stage: Stage) -> Answer:
    path = "/v1/projects/default/quota"
    quota = stage.client.get(path)
    headers = {"If-Match": quota.headers["etag"]}
    return stage.client.put(path, json=quota.json()["limits"] | {"studies": 50}, headers=headers)


def _patch(stage: Stage) -> Answer:
    return stage.client.patch("/v1/studies/second", json={"budget": {"max_trials": 9}})


#: a request of each kind that succeeds, in an order in which each can
WALK: dict[str, Callable[[Stage], Answer]] = {
    "create_study": lambda on: on.post("/v1/studies", spec("second")),
    "clone_study": lambda on: on.post("/v1/studies/second:clone", {"name": "third"}),
    "extend_study": _patch,
    "enqueue_trial": lambda on: on.post("/v1/studies/second/trials", {"parameters": {"learning_rate": 1e-3}}),
    "pause_study": lambda on: on.post("/v1/studies/second:pause"),
    "resume_study": lambda on: on.post("/v1/studies/second:resume"),
    "stop_study": lambda on: on.post("/v1/studies/second:stop"),
    "cancel_study": lambda on: on.post("/v1/studies/third:cancel"),
    "check_paths": lambda on: on.post("/v1/path-checks"),
    "drain_worker": lambda on: on.post("/v1/workers/one:drain"),
    "quarantine_worker": lambda on: on.post("/v1/workers/two:quarantine?reason=smoke"),
    "release_worker": lambda on: on.post("/v1/workers/three:release"),
    "promote": lambda on: on.post("/v1/promotions", {"study": "first", "name": "bot"}),
    "deliver_promotion": lambda on: on.post("/v1/promotions/bot/1/deliveries", {}),
    "approve_promotion": _approve,
    "roll_back_promotion": lambda on: on.post("/v1/promotions/bot:rollback", {}),
    "create_key": lambda on: on.post("/v1/keys", {"label": "ci", "scopes": ["study:read"]}),
    "rotate_key": lambda on: on.post(f"/v1/keys/{on.newest_key()}:rotate", {}),
    "revoke_key": lambda on: on.client.delete(f"/v1/keys/{on.newest_key()}"),
    "create_project": lambda on: on.post("/v1/projects", {"name": "other"}),
    "set_quota": _set_quota,
    "create_login_link": lambda on: on.post("/v1/login-links"),
    "log_out": lambda on: on.browser.post("/v1/logout", headers={"Origin": "http://testserver", "HPO-Console": "1"}),
    "delete_study": lambda on: on.client.delete("/v1/studies/first"),
}


@pytest.fixture
def stage(client: TestClient, sessions: Sessions, root: Path) -> Stage:
    """Study `first` has ended; three workers."""
    end_study(client, sessions, root)
    with sessions.begin() as session:
        key = create_key(session, DEFAULT_PROJECT_ID, "approver")
        link = create_login_link(session, key, "")
        session.add_all(
            Worker(project_id=DEFAULT_PROJECT_ID, executor="fake", name=name, state=state, epoch=1)
            for name, state in (("one", "ready"), ("two", "ready"), ("three", "quarantined"))
        )
    browser = TestClient(client.app, raise_server_exceptions=False)
    browser.get(link).raise_for_status()
    return Stage(client, sessions, serving.bearer(key), browser)


def changing(app: FastAPI) -> Iterator[tuple[str, APIRoute]]:
    """(method, route) of everything that may change something."""
    for route in routes(app):
        yield from ((method, route) for method in route.methods or () if method not in SAFE_METHODS)


def app_of(client: TestClient) -> FastAPI:
    assert isinstance(client.app, FastAPI)
    return client.app


def test_the_walk_knows_every_route(client: TestClient) -> None:
    """A new route that changes something needs a request in `WALK`, which shows that it leaves a row."""
    assert {route.operation_id for _, route in changing(app_of(client))} == WALK.keys() | LOOKS_ONLY


def test_a_change_and_its_row_are_one(stage: Stage, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the row cannot be written nothing is changed; where it can, it says what was done."""

    def broken(*_: object) -> None:
        raise RuntimeError("no row")

    for operation, request in WALK.items():
        before = contents(engine)
        if operation != "approve_promotion":  # it makes its promotion itself
            with monkeypatch.context() as patched:
                patched.setattr(audit, "add", broken)
                answer = request(stage)
            assert answer.status_code == 500, f"{operation}: {answer.text}"
            assert contents(engine) == before, f"{operation} was not undone"
            failed = audited(engine)[-1]
            assert (failed.action, failed.outcome, failed.status) == (operation, "failed", 500)
        answer = request(stage)
        assert answer.status_code in (200, 201, 202, 204), f"{operation}: {answer.text}"
        assert contents(engine) != before
        row = audited(engine)[-1]
        assert (row.action, row.outcome, row.status) == (operation, "done", answer.status_code)
        assert (row.request_id, row.client) == (answer.headers["x-request-id"], "testclient")
        assert row.who == f"hpo_key_{row.key_id}"
    rows = {row.action: row for row in audited(engine) if row.outcome == "done"}
    for action, about in {
        "create_study": "studies/second",
        "clone_study": "studies/third",
        "pause_study": "studies/second",
        "enqueue_trial": "studies/second/trials",
        "promote": "promotions/bot/2",
        "quarantine_worker": "workers/two",
        "create_project": "projects/other",
        "delete_study": "studies/first",
    }.items():
        assert rows[action].object == about
    assert rows["extend_study"].details["budget"] == {"max_trials": 9}
    assert rows["quarantine_worker"].details["reason"] == "smoke"
    assert (rows["create_key"].details["label"], rows["create_key"].details["scopes"]) == ("ci", ["study:read"])
    assert rows["approve_promotion"].key_id != rows["promote"].key_id


def test_whoever_is_refused_leaves_a_row(client: TestClient, sessions: Sessions, engine: Engine) -> None:
    with sessions.begin() as session:
        lacking = {
            scope: serving.bearer(create_key(session, DEFAULT_PROJECT_ID, scope, set(Scope) - {scope}))
            for scope in Scope
        }
    for method, route in changing(app_of(client)):
        path = re.sub(r"\{[^}]*\}", _NOTHING, route.path)
        for headers, status in ((lacking[Scope(wanted(route)[0])], {403}), ({}, {400, 404, 409, 422, 428})):
            count = len(audited(engine))
            answer = client.request(method, path, headers=headers, content=b"[]")
            if answer.is_success and route.operation_id in ("check_paths", "create_login_link", "log_out"):
                continue  # these need nothing
            assert answer.status_code in status, f"{method} {path}: {answer.text}"
            row = audited(engine)[-1]
            assert (len(audited(engine)), row.action) == (count + 1, route.operation_id)
            assert (row.outcome, row.status) == ("refused", answer.status_code)
            assert row.request_id == answer.headers["x-request-id"]


def test_looking_leaves_no_row_unless_it_is_refused(client: TestClient, sessions: Sessions, engine: Engine) -> None:
    for path in ("/", "/v1/studies", "/v1/audit", "/v1/studies/none", "/openapi.json"):
        client.get(path)
    client.post("/nowhere")
    client.delete("/v1/studies")
    asked = {"model": {"path": "model"}, "data": {"train": "train.jsonl"}}
    assert client.post("/v1/studies:suggest", json=asked).status_code in (200, 422)
    assert [row for row in audited(engine) if row.outcome != "refused"] == []
    with sessions.begin() as session:
        reader = serving.bearer(create_key(session, DEFAULT_PROJECT_ID, "reader", [Scope.STUDY_READ]))
    count = len(audited(engine))
    for _ in range(3):  # a program that asks all the time does not fill the log
        assert client.get("/v1/keys", headers=reader).status_code == 403
    (row,) = audited(engine)[count:]
    assert (row.action, row.object, row.outcome) == ("list_keys", "keys", "refused")


def test_a_repeated_request_changes_nothing(client: TestClient, engine: Engine) -> None:
    for _ in range(2):
        client.post("/v1/studies", json=spec(), headers={"Idempotency-Key": "once"}).raise_for_status()
    assert [(row.action, row.outcome) for row in audited(engine)] == [
        ("create_study", "done"),
        ("create_study", "unchanged"),
    ]
