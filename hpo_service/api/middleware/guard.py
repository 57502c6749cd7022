"""Nothing is reachable without credentials, except a short list of addresses."""

import hmac
from urllib.parse import quote

from fastapi.concurrency import run_in_threadpool
from pydantic import SecretStr
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from hpo_service.api.http import auth
from hpo_service.api.http.audit_trail import SAFE_METHODS
from hpo_service.api.http.problem_pages import wants_page
from hpo_service.api.http.problems import problem_response, unavailable
from hpo_service.auth.oidc.setup import CALLBACK_PATH
from hpo_service.core.errors import Forbidden, HpoError, Unauthenticated
from hpo_service.formatting.html import page, tag

OIDC_LOGIN = "/oidc/login"
PUBLIC = frozenset({"/healthz", "/readyz", "/login", OIDC_LOGIN, CALLBACK_PATH})
METRICS = "/metrics"
CONSOLE_HEADER = "HPO-Console"
"""Sent by the console's script with every request. Another site's page cannot send it here unasked."""


class Guard:
    """Authenticates, then puts the `Principal` into `scope["state"]`; None for who holds the token of `/metrics`."""

    def __init__(
        self,
        app: ASGIApp,
        sessions: sessionmaker[Session],
        metrics_token: SecretStr | None = None,
        *,
        has_oidc: bool = False,
    ) -> None:
        self._app = app
        self._sessions = sessions
        self._has_oidc = has_oidc
        self._metrics_token = metrics_token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["path"] in PUBLIC:
            await self._app(scope, receive, send)
            return
        if self._may_read_metrics(scope):
            scope.setdefault("state", {})["principal"] = None
            await self._app(scope, receive, send)
            return
        try:
            principal = await run_in_threadpool(self._authenticate, HTTPConnection(scope), scope["method"])
        except Unauthenticated as error:
            await _refusal(error, scope, self._has_oidc)(scope, receive, send)
            return
        except HpoError as error:
            await problem_response(error)(scope, receive, send)
            return
        scope.setdefault("state", {})["principal"] = principal
        await self._app(scope, receive, send)

    def _may_read_metrics(self, scope: Scope) -> bool:
        """Known without the database, so that a scrape can tell that the database is away."""
        if scope["path"] != METRICS or scope["method"] not in SAFE_METHODS or self._metrics_token is None:
            return False
        given = auth.bearer(Headers(scope=scope).get("authorization", "")) or ""
        return hmac.compare_digest(given.encode(), self._metrics_token.get_secret_value().encode())

    def _authenticate(self, connection: HTTPConnection, method: str) -> auth.Principal:
        header = connection.headers.get("authorization")
        cookie = connection.cookies.get(auth.COOKIE)
        try:
            with self._sessions.begin() as session:
                if header is not None:
                    return auth.authenticate_key(session, auth.bearer(header) or "")
                if cookie is not None:
                    caller = auth.authenticate_browser(session, cookie)
                    connection.state.principal = caller  # whose refusal is told, too
                    if method not in SAFE_METHODS:
                        _require_console(connection)
                    return caller
        except (OperationalError, PoolTimeoutError) as error:
            raise unavailable(error) from error
        raise Unauthenticated("Send an API key as `Authorization: Bearer hpo_key_…`, or open a login link.")


def _require_console(connection: HTTPConnection) -> None:
    """Cookies go with whatever a browser sends, so a change has to prove that a page of ours asked for it.

    Raises:
        Forbidden: the request comes from elsewhere, or not from the console's script.
    """
    own = f"{connection.scope['scheme']}://{connection.headers.get('host', '')}"
    if connection.headers.get("origin") != own:
        raise Forbidden(
            "a browser session changes things from this service's own pages only, and the request's `Origin` does not "
            "say that it comes from one; use the console, or send an API key as a Bearer token."
        )
    if CONSOLE_HEADER not in connection.headers:
        raise Forbidden(
            f"a browser session changes things by the console's script only, which sends `{CONSOLE_HEADER}`; use the "
            "console, or send an API key as a Bearer token."
        )


def _refusal(error: Unauthenticated, scope: Scope, has_oidc: bool) -> Response:
    if not wants_page(Headers(scope=scope)):
        return problem_response(error)
    body = page(
        "Log in",
        tag("h1", "Log in"),
        tag("p", "This browser is not logged in, or its session has ended."),
        tag("p", tag("a", "Log in", href=f"{OIDC_LOGIN}?next={quote(scope['path'])}")) if has_oidc else None,
        tag("p", "Run ", tag("code", "hpo login"), " on the machine of the service and open the link that it prints."),
    )
    return HTMLResponse(body, 401, {"WWW-Authenticate": "Bearer"})
