"""Browsers log in with a link that works once; programs that hold a key can ask for one."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import HTMLResponse, Response

from hpo_service.api.http import auth
from hpo_service.api.http.audit_trail import login_entry
from hpo_service.api.http.dependencies import SessionDependency, UnconfinedSessionDependency
from hpo_service.api.http.scopes import needs
from hpo_service.auth.principals import Scope
from hpo_service.formatting.html import page, tag
from hpo_service.services.access import audit

router = APIRouter()


class LoginLink(BaseModel):
    """A link that logs one browser in, once."""

    url: str = Field(description="Open it within ten minutes.")
    expires_in_seconds: int = auth.LOGIN_SECONDS


@router.get("/login", include_in_schema=False)
def log_in(
    request: Request, session: UnconfinedSessionDependency, token: Annotated[str, Query(max_length=128)] = ""
) -> HTMLResponse:
    """Consume the token of a login link and open a browser session.

    The way on is a link in a page, not a redirect: a SameSite=Strict cookie would not come along with a redirect that
    another site began.
    """
    opened = auth.open_browser_session(session, token)
    if opened is None:
        body = page(
            "Log in",
            tag("h1", "This link does not work any more"),
            tag(
                "p", "A login link works once and for ten minutes. Ask for another with ", tag("code", "hpo login"), "."
            ),
        )
        return HTMLResponse(body, 401)
    audit.watch(session, login_entry(request.scope, opened.project_id, opened.key_id, {"by": "link"}))
    return logged_in(opened.secret, "/", secure=request.url.scheme == "https")


def logged_in(secret: str, next: str, *, secure: bool) -> HTMLResponse:
    """The page that leads on to `next`, with the cookie of the session."""
    way = tag("a", "Go on", href=next)
    response = HTMLResponse(page("Logged in", tag("p", "Logged in. ", way), refresh_seconds=0, refresh_to=next))
    response.set_cookie(
        auth.COOKIE,
        secret,
        max_age=auth.SESSION_SECONDS,
        path="/",
        httponly=True,
        samesite="strict",
        secure=secure,
    )
    return response


@router.post(
    "/v1/logout",
    tags=["login"],
    operation_id="log_out",
    summary="Log the browser out",
    status_code=204,
    dependencies=[needs(Scope.STUDY_READ)],
)
def log_out(request: Request, session: SessionDependency) -> Response:
    """End the session of this browser. A program's key is revoked instead."""
    auth.end_browser_session(session, request.cookies.get(auth.COOKIE, ""))
    response = Response(status_code=204)
    response.delete_cookie(auth.COOKIE, path="/", httponly=True, samesite="strict")
    return response


@router.post(
    "/v1/login-links",
    tags=["login"],
    operation_id="create_login_link",
    summary="Make a login link",
    status_code=201,
    dependencies=[needs(Scope.STUDY_READ)],
)
def create_login_link(request: Request, session: SessionDependency) -> LoginLink:
    """For the browser of whoever holds the API key of this request."""
    key = auth.bearer(request.headers.get("authorization", "")) or ""
    return LoginLink(url=auth.create_login_link(session, key, str(request.base_url)))
