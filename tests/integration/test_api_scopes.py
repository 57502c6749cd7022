"""Every route wants exactly one scope, and nobody gets in without it."""

import re
from collections.abc import Iterator

from fastapi import FastAPI, params
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.api.middleware.guard import PUBLIC
from hpo_service.auth.principals import Scope, create_key
from hpo_service.storage.database.preparation import downgrade, upgrade
from hpo_service.storage.tables import DEFAULT_PROJECT_ID
from tests import serving

Sessions = sessionmaker[Session]


def routes(app: FastAPI) -> Iterator[APIRoute]:
    """Every route but the public ones; there are no other kinds of routes."""

    def walk(found: list[object]) -> Iterator[APIRoute]:
        for route in found:
            inner = getattr(getattr(route, "original_router", None), "routes", None)
            if inner is not None:
                yield from walk(list(inner))
            else:
                assert isinstance(route, APIRoute), route
                if route.path not in PUBLIC:
                    yield route

    yield from walk(list(app.routes))


def wanted(route: APIRoute) -> list[str]:
    """The scopes that the route declares."""
    return [scope for one in route.dependencies if isinstance(one, params.Security) for scope in one.scopes or ()]


def test_every_route_declares_one_scope(anonymous: TestClient) -> None:
    app = anonymous.app
    assert isinstance(app, FastAPI)
    found = list(routes(app))
    assert len(found) > 50
    for route in found:
        assert len(wanted(route)) == 1, f"{route.methods} {route.path}: {wanted(route)}"
        Scope(wanted(route)[0])
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            declared = [] if path in PUBLIC else [one["apiKey"] for one in operation["security"]]
            assert [len(scopes) for scopes in declared] == ([] if path in PUBLIC else [1]), f"{method} {path}"


def test_no_route_without_its_scope(anonymous: TestClient, sessions: Sessions) -> None:
    """A key with all scopes but the one that a route wants gets 403 there, and with this one alone it does not."""
    with sessions.begin() as session:
        lacking, having = (
            {scope: serving.bearer(create_key(session, DEFAULT_PROJECT_ID, f"{scope} {only}", choose(scope, only)))
             for scope in Scope}
            for only in (False, True)
        )  # fmt: skip
    app = anonymous.app
    assert isinstance(app, FastAPI)
    app.state.stopping.set()  # streams end at once
    for route in routes(app):
        scope = Scope(wanted(route)[0])
        path = re.sub(r"\{[^}]*\}", "999999", route.path)  # which nothing has
        for method in route.methods or ():
            refused = anonymous.request(method, path, headers=lacking[scope])
            assert refused.status_code == 403, f"{method} {path}: {refused.status_code} without {scope}"
            if method != "HEAD":
                assert (refused.json()["code"], f"'{scope}'" in refused.json()["detail"]) == ("forbidden", True)
            assert anonymous.request(method, path, headers=having[scope]).status_code not in (401, 403), path


def choose(scope: Scope, only: bool) -> list[Scope]:
    return [one for one in Scope if (one is scope) is only]


def test_a_browser_session_has_the_rights_of_its_key(anonymous: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        key = create_key(session, DEFAULT_PROJECT_ID, "reader", [Scope.STUDY_READ])
    link = anonymous.post("/v1/login-links", headers=serving.bearer(key)).json()["url"]
    assert anonymous.get(link).status_code == 200
    assert anonymous.get("/v1/studies").status_code == 200
    assert anonymous.get("/metrics").json()["code"] == "forbidden"


def test_keys_from_before_keep_what_they_could_do(engine: Engine) -> None:
    downgrade(engine, "0011-1")
    with engine.begin() as connection:
        for label, scopes in (("ci", '["promote"]'), ("admin", '["promote", "approve"]')):
            statement = "INSERT INTO hpo.api_keys (project_id, label, secret_sha256, scopes) VALUES (1, :l, '', :s)"
            connection.execute(text(statement), {"l": label, "s": scopes})
    upgrade(engine)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT label, scopes FROM hpo.api_keys"))
        found = {row.label: row.scopes for row in rows}
    assert set(found["ci"]) == {"study:read", "study:write", "promote"}
    assert set(found["admin"]) == set(Scope)
