"""Nothing answers without credentials; a browser gets in once by link and changes things from our own pages only."""

import re
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.api.http.auth import COOKIE, create_login_link
from hpo_service.api.middleware.guard import CONSOLE_HEADER, PUBLIC
from hpo_service.core.messages import IntentKind
from tests import serving
from tests.safe_answers import require_safe
from tests.serving import spec

Sessions = sessionmaker[Session]
HTML = {"Accept": "text/html,application/xhtml+xml"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
EXTRA = [
    "/openapi.json",
    "/docs",
    "/redoc",
    "/dashboard/studies/1",
    "/api/meta",
    "/api/studies",
    "/static/bundle.js",
    "/favicon.ico",
    "/csv/1",
    "/artifacts/1/x",
    "/no/such/thing",
    "//healthz",
    "/healthz/",
    "/login/x",
]


def paths(app: FastAPI, instead: str = "1") -> Iterator[str]:
    """Every path that the application or anything mounted in it knows, with something `instead` of its parameters."""

    def walk(routes: list[object], prefix: str = "") -> Iterator[str]:
        for route in routes:
            path = prefix + str(getattr(route, "path", ""))
            inner = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None)
            if inner:
                yield from walk(list(inner), path)
            else:
                yield re.sub(r"\{[^}]*\}", instead, path)

    yield from walk(list(app.routes))


def test_every_route_wants_credentials(anonymous: TestClient) -> None:
    app = anonymous.app
    assert isinstance(app, FastAPI)
    known = {re.sub(r"\{[^}]*\}", "1", path) for path in app.openapi()["paths"]}
    found = set(paths(app))
    assert known <= found, "the walk does not see every route"
    assert {f"/v1/studies/1:{kind}" for kind in (IntentKind.PAUSE, IntentKind.STOP)} <= found
    for path in sorted({*found, *EXTRA} - PUBLIC):
        for method in METHODS:
            answer = anonymous.request(method, path)
            assert answer.status_code == 401, f"{method} {path}: {answer.status_code}"
            assert answer.headers["www-authenticate"] == "Bearer"


def test_public_routes_tell_nothing(anonymous: TestClient) -> None:
    assert anonymous.get("/healthz").json() == {"status": "ok"}
    assert anonymous.get("/readyz").json() == {"status": "ok"}
    assert anonymous.get("/login").status_code == 401


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer x",
        "Basic aHBvOmhwbw==",
        "Bearer hpo_key_1_" + "a" * 43,
        "Bearer hpo_key_999999_" + "a" * 43,
        "Bearer hpo_key_99999999999999999999_" + "a" * 43,
        "Bearer hpo_key_1_' OR 1=1 --",
    ],
)
def test_wrong_keys(anonymous: TestClient, sessions: Sessions, header: str) -> None:
    serving.make_key(sessions)
    answer = anonymous.get("/v1/studies", headers={"Authorization": header})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert header.removeprefix("Bearer ") not in answer.text or header in ("Bearer", "Bearer x")


def test_a_revoked_key_and_its_sessions_end(anonymous: TestClient, sessions: Sessions) -> None:
    key = serving.make_key(sessions)
    log_in(anonymous, sessions, key)
    assert anonymous.get("/").status_code == 200
    with sessions.begin() as session:
        session.execute(text("UPDATE hpo.api_keys SET revoked_at = now()"))
    assert anonymous.get("/v1/studies", headers=serving.bearer(key)).status_code == 401
    assert anonymous.get("/").status_code == 401


def test_only_digests_are_stored(sessions: Sessions) -> None:
    key = serving.make_key(sessions)
    with sessions.begin() as session:
        link = create_login_link(session, key, "http://localhost")
        kept = f"{session.execute(text('SELECT * FROM hpo.api_keys')).all()}"
        kept += f"{session.execute(text('SELECT * FROM hpo.browser_tokens')).all()}"
    assert key.split("_", 3)[3] not in kept
    assert link.partition("token=")[2] not in kept


def test_a_login_link_works_once(anonymous: TestClient, sessions: Sessions) -> None:
    path = login_path(sessions, serving.make_key(sessions))
    assert anonymous.head(path).status_code == 405
    answer = anonymous.get(path)
    assert answer.status_code == 200
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "max-age=43200" in cookie
    assert answer.headers["referrer-policy"] == "no-referrer"
    anonymous.cookies.clear()
    again = anonymous.get(path)
    assert again.status_code == 401
    assert "set-cookie" not in again.headers


def test_a_login_link_expires(anonymous: TestClient, sessions: Sessions) -> None:
    path = login_path(sessions, serving.make_key(sessions))
    with sessions.begin() as session:
        session.execute(text("UPDATE hpo.browser_tokens SET expires_at = clock_timestamp()"))
    assert anonymous.get(path).status_code == 401


def test_a_session_reads(anonymous: TestClient, sessions: Sessions) -> None:
    log_in(anonymous, sessions, serving.make_key(sessions))
    assert anonymous.get("/v1/studies").status_code == 200
    assert anonymous.get("/docs").status_code == 200
    with sessions.begin() as session:
        session.execute(text("UPDATE hpo.browser_tokens SET expires_at = clock_timestamp()"))
    assert anonymous.get("/v1/studies").status_code == 401


OURS = {"Origin": "http://testserver", CONSOLE_HEADER: "1"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": OURS["Origin"]},
        {CONSOLE_HEADER: "1"},
        {CONSOLE_HEADER: "1", "Referer": "http://testserver/"},
        {**OURS, "Origin": "null"},
        {**OURS, "Origin": "https://testserver"},
        {**OURS, "Origin": "http://testserver:81"},
        {**OURS, "Origin": "http://testserver.evil.example"},
        {**OURS, "Origin": "http://evil.example"},
    ],
)
def test_a_session_changes_nothing_for_other_sites(
    anonymous: TestClient, sessions: Sessions, headers: dict[str, str]
) -> None:
    log_in(anonymous, sessions, serving.make_key(sessions))
    for method, path in (("POST", "/v1/studies"), ("PATCH", "/v1/studies/x"), ("DELETE", "/v1/studies/x")):
        answer = anonymous.request(method, path, json=spec(), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert anonymous.get("/v1/studies").json()["items"] == []


def test_a_session_changes_things_from_our_pages(anonymous: TestClient, sessions: Sessions) -> None:
    log_in(anonymous, sessions, serving.make_key(sessions))
    assert anonymous.post("/v1/studies", json=spec(), headers=OURS).status_code == 201
    assert anonymous.post("/v1/login-links", headers=OURS).status_code == 401
    with sessions.begin() as session:
        session.execute(text("UPDATE hpo.browser_tokens SET expires_at = clock_timestamp()"))
    assert anonymous.delete("/v1/studies/first", headers=OURS).status_code == 401


def test_a_login_token_is_no_session(anonymous: TestClient, sessions: Sessions) -> None:
    token = login_path(sessions, serving.make_key(sessions)).partition("token=")[2]
    assert anonymous.get("/", headers={"Cookie": f"{COOKIE}={token}"}).status_code == 401


def test_a_program_asks_for_a_link(client: TestClient) -> None:
    answer = client.post("/v1/login-links")
    assert answer.status_code == 201
    link = answer.json()["url"]
    del client.headers["authorization"]
    assert client.get(link).status_code == 200
    assert client.get("/", headers=HTML).status_code == 200


def test_a_browser_is_told_how_to_log_in(anonymous: TestClient) -> None:
    answer = anonymous.get("/", headers=HTML)
    assert answer.status_code == 401
    assert "hpo login" in answer.text


def test_every_answer_has_safe_headers(client: TestClient, sessions: Sessions) -> None:
    """Of every route and method: to a key, to nobody, to a browser; errors of ours too."""
    app = client.app
    assert isinstance(app, FastAPI)
    app.state.stopping.set()  # streams end at once
    client.post("/v1/studies", json=spec())
    statuses = set[int]()
    for path in sorted({*paths(app, "999999"), *paths(app, "first"), *EXTRA}):
        for method in METHODS:
            answer = client.request(method, path)
            statuses.add(answer.status_code)
            require_safe(answer)
    assert statuses >= {200, 400, 404, 405}
    key = client.headers.pop("authorization")
    for path in sorted({*paths(app, "first"), *EXTRA}):
        require_safe(client.get(path))
    require_safe(client.get(login_path(sessions, key.removeprefix("Bearer "))))
    for path in sorted({*paths(app, "first"), *EXTRA}):
        require_safe(client.get(path, headers=HTML))


def test_an_error_of_ours_has_safe_headers(client: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        session.execute(text("ALTER TABLE hpo.studies RENAME TO elsewhere"))
    answer = client.get("/v1/studies")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    require_safe(answer)


def test_the_home_page_escapes_what_users_write(client: TestClient, sessions: Sessions) -> None:
    client.post("/v1/studies", json=spec())
    with sessions.begin() as session:
        session.execute(text("UPDATE hpo.studies SET message = '<script>alert(1)</script>'"))
    page = client.get("/").text
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_openapi_is_complete(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    assert all(operation["summary"] and operation["tags"] for operation in operations)
    identifiers = [operation["operationId"] for operation in operations]
    assert len(set(identifiers)) == len(identifiers)
    references = set(re.findall(r'#/components/schemas/([^"]+)"', client.get("/openapi.json").text))
    assert references <= set(document["components"]["schemas"])
    assert all(identifier.replace("_", "").isalpha() for identifier in identifiers)
    page = client.get("/docs").text
    assert "/v1/studies/{name}:pause" in page
    assert "http" not in re.sub(r"https?://localhost", "", " ".join(re.findall(r'(?:src|href)="([^"]*)"', page)))


def login_path(sessions: Sessions, key: str) -> str:
    with sessions.begin() as session:
        return create_login_link(session, key, "")


def log_in(client: TestClient, sessions: Sessions, key: str) -> None:
    assert client.get(login_path(sessions, key)).status_code == 200
