"""Logging in with an identity provider: a real one over HTTP, and everything that could be wrong with its answer."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.api.http.auth import COOKIE
from hpo_service.auth.oidc import granted, read_rules
from hpo_service.auth.oidc import provider as oidc_provider
from hpo_service.auth.principals import Scope, create_key
from hpo_service.core.errors import SetupError, Unavailable
from hpo_service.storage.tables import DEFAULT_PROJECT_ID
from tests import serving
from tests.audited import audited
from tests.oidc_provider import (
    CLIENT_ID,
    CLIENT_SECRET,
    Provider,
    new_key,
    provider,
    signed_with_the_public_key,
    unsigned,
)
from tests.tenants import Answer

Sessions = sessionmaker[Session]
Json = dict[str, Any]
HOST = "http://localhost"
RULES = [
    {"claim": "groups", "value": "ml", "project": "default", "scopes": ["study:read", "promote", "approve"]},
    {"claim": "email_domain", "value": "example.com", "project": "default", "scopes": ["study:read"]},
    {"claim": "groups", "value": "speech", "project": "speech", "scopes": ["study:read"]},
    {"claim": "groups", "value": "lost", "project": "nowhere", "scopes": ["study:read"]},
]


@pytest.fixture
def idp() -> Iterator[Provider]:
    """The provider."""
    with provider() as running:
        yield running


def configured(root: Path, issuer: str, **changes: Any) -> Any:
    rules = root / "oidc.yaml"
    rules.write_text(json.dumps(RULES))
    wanted: Json = {
        "oidc_issuer": issuer,
        "oidc_client_id": CLIENT_ID,
        "oidc_client_secret": CLIENT_SECRET,
        "oidc_redirect_url": f"{HOST}/oidc/callback",
        "oidc_rules": rules,
    }
    return serving.settings(root, **(wanted | changes))


@pytest.fixture
def browser(engine: Engine, root: Path, idp: Provider) -> TestClient:
    """Of somebody who is not logged in."""
    client = serving.serve(engine, configured(root, idp.url))
    client.base_url = HOST
    client.follow_redirects = False
    client.headers["Accept"] = "text/html"
    return client


def begin(browser: TestClient, next: str = "/") -> str:
    """Where the provider sends the browser back to."""
    asked = browser.get("/oidc/login", params={"next": next})
    assert asked.status_code == 303, asked.text
    sent = httpx.get(asked.headers["location"])
    assert sent.status_code == 302
    return sent.headers["location"]


def log_in(browser: TestClient, next: str = "/") -> Answer:
    return browser.get(begin(browser, next))


def refused(answer: Answer, status: int, *words: str) -> None:
    assert answer.status_code == status, answer.text
    assert COOKIE not in answer.headers.get("set-cookie", "")
    for word in words:
        assert word in answer.text


def test_a_person_logs_in_and_out(browser: TestClient, idp: Provider, engine: Engine) -> None:
    assert "/oidc/login?next=/workers" in browser.get("/workers").text
    answer = log_in(browser, "/workers?x=1")
    assert answer.status_code == 200
    assert "url=/workers?x=1" in answer.text
    cookies = answer.headers.get_list("set-cookie")  # type: ignore[attr-defined]
    session = next(cookie for cookie in cookies if cookie.startswith(COOKIE))
    assert {"HttpOnly", "SameSite=strict", "Max-Age=43200", "Path=/"} <= set(session.split("; "))
    assert any(cookie.startswith('hpo_oidc="";') and "Max-Age=0" in cookie for cookie in cookies)
    assert browser.get("/v1/studies").status_code == 200
    assert browser.get("/v1/keys").status_code == 403
    asked = dict(next(given for path, given in idp.asked if path == "/authorize"))
    assert (asked["response_type"], asked["code_challenge_method"], asked["scope"]) == (
        "code", "S256", "openid email profile",
    )  # fmt: skip
    row = next(row for row in audited(engine) if row.action == "log_in")
    scopes = ["approve", "promote", "study:read"]
    assert row.details == {"by": "oidc", "person": "person alice@example.com", "scopes": scopes}
    assert (row.who, row.object, row.outcome) == (f"hpo_key_{row.key_id}", "oidc/callback", "done")
    console = {"Origin": "http://localhost", "HPO-Console": "1"}
    assert browser.post("/v1/logout").status_code == 403
    kept = browser.cookies[COOKIE]
    assert browser.post("/v1/logout", headers=console).status_code == 204
    assert COOKIE not in browser.cookies
    assert browser.get("/v1/studies", headers={"Cookie": f"{COOKIE}={kept}"}).status_code == 401
    assert audited(engine)[-1].action == "log_out"


def test_a_person_is_one_key_whose_rights_follow_the_provider(
    browser: TestClient, idp: Provider, sessions: Sessions, engine: Engine
) -> None:
    """So nobody approves what they promoted, whenever they log in."""
    with sessions.begin() as session:
        admin = serving.bearer(create_key(session, DEFAULT_PROJECT_ID, "admin"))

    def keys() -> list[Json]:
        found: list[Json] = browser.get("/v1/keys", headers=admin).json()["items"]
        return [key for key in found if key["label"] != "admin"]

    log_in(browser)
    (first,) = keys()
    assert (first["label"], first["scopes"]) == ("person alice@example.com", ["approve", "promote", "study:read"])
    idp.person |= {"email": "a.smith@example.com", "groups": []}
    browser.cookies.clear()
    log_in(browser)
    (again,) = keys()
    assert (again["id"], again["label"], again["scopes"]) == (first["id"], "person a.smith@example.com", ["study:read"])
    idp.person |= {"sub": "another"}
    browser.cookies.clear()
    log_in(browser)
    assert len(keys()) == 2
    answer = browser.post(f"/v1/keys/{first['id']}:rotate", json={}, headers=admin)
    assert (answer.status_code, "identity provider" in answer.text) == (409, True)
    for secret in ("", "a" * 43):
        headers = serving.bearer(f"hpo_key_{first['id']}_{secret}")
        assert browser.get("/v1/studies", headers=headers).status_code == 401
    idp.person |= {"sub": "alice-1"}
    browser.cookies.clear()
    log_in(browser)
    assert browser.delete(f"/v1/keys/{first['id']}", headers=admin).status_code == 200
    assert browser.get("/v1/studies").status_code == 401
    browser.cookies.clear()
    refused(log_in(browser), 403, "was revoked")
    row = audited(engine)[-1]
    assert (row.action, row.outcome, row.status, row.key_id) == ("log_in", "refused", 403, None)
    assert row.who == "person a.smith@example.com"


def test_rules_choose_the_project(browser: TestClient, idp: Provider, sessions: Sessions) -> None:
    speech = serving.make_project(sessions, "speech")
    idp.person |= {"groups": ["speech"], "email_verified": False}
    assert log_in(browser).status_code == 200
    with sessions() as session:
        assert session.execute(text("SELECT project_id FROM hpo.api_keys")).scalars().all() == [speech]
    browser.cookies.clear()
    idp.person |= {"groups": []}
    refused(log_in(browser), 403, "may use no project here")  # the address is not verified
    idp.person |= {"groups": ["lost"]}
    refused(log_in(browser), 404, "no project")
    idp.person |= {"groups": ["ml"], "sub": "<script>", "email": "<script>alert(1)</script>"}
    assert "<script>alert" not in log_in(browser).text
    idp.person |= {"groups": []}
    answer = log_in(browser)
    refused(answer, 403, "&lt;script&gt;")
    assert "<script>alert" not in answer.text


_WRONG: dict[str, Callable[[Provider], None]] = {
    "another nonce": lambda idp: idp.claims.update(nonce="n" * 43),
    "no nonce": lambda idp: idp.claims.update(nonce=None),
    "expired": lambda idp: idp.claims.update(exp=int(time.time()) - 120),
    "no expiry": lambda idp: idp.claims.update(exp=None),
    "from the future": lambda idp: idp.claims.update(iat=int(time.time()) + 600),
    "another audience": lambda idp: idp.claims.update(aud="another"),
    "no audience": lambda idp: idp.claims.update(aud=None),
    "two audiences, another party": lambda idp: idp.claims.update(aud=[CLIENT_ID, "another"], azp="another"),
    "two audiences, no party": lambda idp: idp.claims.update(aud=[CLIENT_ID, "another"]),
    "another issuer": lambda idp: idp.claims.update(iss="https://evil.test"),
    "no subject": lambda idp: idp.claims.update(sub=None),
    "hash of another access token": lambda idp: idp.claims.update(at_hash="AAAAAAAAAAAAAAAAAAAAAA"),
    "not signed": lambda idp: setattr(idp, "sign", unsigned),
    "signed with the public key": lambda idp: setattr(idp, "sign", signed_with_the_public_key),
    "signed with another key": lambda idp: idp.published.append(new_key("first")),
    "not a token": lambda idp: setattr(idp, "sign", lambda *_: "a.b"),
    "no token": lambda idp: setattr(idp, "sign", lambda *_: None),
    "code refused": lambda idp: setattr(idp, "token_status", 400),
}


@pytest.mark.parametrize("what", _WRONG)
def test_an_answer_that_does_not_verify(browser: TestClient, idp: Provider, sessions: Sessions, what: str) -> None:
    _WRONG[what](idp)
    refused(log_in(browser), 401, "was not accepted")
    assert browser.get("/v1/studies").status_code == 401
    with sessions() as session:
        assert session.execute(text("SELECT count(*) FROM hpo.browser_tokens")).scalar_one() == 0


def test_what_this_browser_did_not_begin(browser: TestClient, idp: Provider) -> None:
    back = begin(browser)
    query = {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}
    for changes in ({"state": "another"}, {"state": ""}, {"iss": "https://evil.test"}):
        refused(browser.get("/oidc/callback", params=query | changes), 400)
        back = begin(browser)
        query = {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}
    refused(
        browser.get("/oidc/callback", params={"state": query["state"], "error": "access_denied"}), 401, "access_denied"
    )
    back = begin(browser)
    kept = browser.cookies["hpo_oidc"]
    browser.cookies.clear()
    refused(browser.get(back), 400, "did not begin this login")
    for cookie in ("x", "...", kept + ".x"):
        refused(browser.get(back, headers={"Cookie": f"hpo_oidc={cookie}"}), 400)
    parts = kept.strip('"').split(".")
    stolen = ".".join([parts[0], parts[1], "v" * 43, parts[3]])
    refused(browser.get(back, headers={"Cookie": f"hpo_oidc={stolen}"}), 401)  # the provider checks PKCE
    back = begin(browser)
    assert browser.get(back).status_code == 200
    browser.cookies.delete(COOKIE)
    refused(browser.get(back), 400)  # once only


@pytest.mark.parametrize(
    "next",
    ["//evil.test", "/\\evil.test", "https://evil.test", "javascript:alert(1)", "evil.test", "/a\nb",
     "/;url=//evil.test", '/"><script>', "/%00\x00", "", "/" + "a" * 400],
)  # fmt: skip
def test_nobody_is_led_elsewhere(browser: TestClient, next: str) -> None:
    answer = log_in(browser, next)
    assert answer.status_code == 200
    assert 'content="0; url=/"' in answer.text
    assert "evil" not in answer.text
    assert "<script>" not in answer.text


def test_keys_of_the_provider_change(browser: TestClient, idp: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    assert log_in(browser).status_code == 200
    idp.key = new_key("second")
    browser.cookies.clear()
    refused(log_in(browser), 401)  # it was asked for its keys just now
    monkeypatch.setattr("hpo_service.auth.oidc.provider._ASK_AGAIN_SECONDS", 0.0)
    assert log_in(browser).status_code == 200
    assert [path for path, _ in idp.asked].count("/jwks") == 2
    assert [path for path, _ in idp.asked].count("/.well-known/openid-configuration") == 1


def test_a_provider_that_is_away_or_somebody_else(engine: Engine, root: Path, idp: Provider) -> None:
    for issuer, metadata in (
        ("http://127.0.0.1:9", {}),
        (idp.url, {"issuer": "https://evil.test"}),
        (idp.url, {"authorization_endpoint": "http://evil.test/authorize"}),
        (idp.url, {"authorization_endpoint": None}),
    ):
        idp.metadata = metadata
        answer = serving.serve(engine, configured(root, issuer)).get("/oidc/login", follow_redirects=False)
        assert (answer.status_code, "does not answer as it should" in answer.text) == (503, True)


def test_logins_that_wait_for_the_provider_leave_threads_for_others(
    idp: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc_provider, "_MOST_AT_ONCE", 1)
    answer, asked, go_on = idp.answer, threading.Event(), threading.Event()

    def slow(*request: Any) -> Any:
        asked.set()
        go_on.wait(30)
        return answer(*request)

    monkeypatch.setattr(idp, "answer", slow)
    ours = oidc_provider.Provider(idp.url, CLIENT_ID, CLIENT_SECRET, f"{HOST}/oidc/callback")
    verifier = "v" * 43
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ours.authorization_url, "state", "nonce", verifier)
        assert asked.wait(30)
        with pytest.raises(Unavailable):
            ours.authorization_url("state", "nonce", verifier)
        with pytest.raises(Unavailable):
            ours.claims("code", "nonce", verifier)
        go_on.set()
        assert first.result().startswith(f"{idp.url}/authorize?")
    assert ours.authorization_url("state", "nonce", verifier) == first.result()


def test_over_https_cookies_are_bound_to_the_host(engine: Engine, root: Path, idp: Provider) -> None:
    settings = configured(root, idp.url, oidc_redirect_url="https://hpo.test/oidc/callback")
    cookie = serving.serve(engine, settings).get("/oidc/login", follow_redirects=False).headers["set-cookie"]
    assert cookie.startswith("__Host-hpo_oidc=")
    assert {"HttpOnly", "Secure", "SameSite=lax", "Path=/", "Max-Age=600"} <= set(cookie.split("; "))


def test_it_is_off_unless_it_is_asked_for_and_never_half(engine: Engine, root: Path, anonymous: TestClient) -> None:
    for path in ("/oidc/login", "/oidc/callback"):
        assert anonymous.get(path).status_code == 404
    assert "/oidc/" not in anonymous.get("/", headers={"Accept": "text/html"}).text
    good = "https://id.example.com"
    for changes, said in (
        ({"oidc_client_id": None}, "HPO_OIDC_CLIENT_ID"),
        ({"oidc_rules": None}, "HPO_OIDC_RULES"),
        ({"oidc_redirect_url": "https://h/login"}, "HPO_OIDC_REDIRECT_URL"),
        ({"oidc_redirect_url": "http://h.test/oidc/callback"}, "HPO_OIDC_REDIRECT_URL"),
        ({"oidc_issuer": "http://id.example.com"}, "HPO_OIDC_ISSUER"),
    ):
        with pytest.raises(SetupError, match=said):
            serving.serve(engine, configured(root, good, **changes))


def test_scopes_of_the_rules_are_scopes(root: Path) -> None:
    assert {scope for rule in RULES for scope in rule["scopes"]} <= set(Scope)


def test_the_rules_of_the_readme(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    written = readme.partition("<!-- oidc: run by")[2].partition("```yaml\n")[2].partition("```")[0]
    file = tmp_path / "oidc.yaml"
    file.write_text(written)
    rules = read_rules(file)
    claims = {"groups": ["ml-speech", "ml-leads"], "email": "a@example.com", "email_verified": True}
    found = granted(rules, claims)
    assert found is not None
    assert (found.project, len(found.scopes)) == ("speech", 5)
