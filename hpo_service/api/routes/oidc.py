"""`/oidc/…`: browsers log in with an identity provider. Here only if `HPO_OIDC_ISSUER` is set.

What is to be recognized when the browser comes back (state, nonce, PKCE verifier) stays in a cookie of its own for ten
minutes. It is SameSite=Lax, because another site sends the browser back; the session's cookie is as strict as ever.
"""

import hmac
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse, RedirectResponse, Response

from hpo_service.api.http import auth
from hpo_service.api.http.audit_trail import login_entry
from hpo_service.api.http.dependencies import UnconfinedSessionDependency
from hpo_service.api.middleware.guard import OIDC_LOGIN
from hpo_service.api.routes.login import logged_in
from hpo_service.auth.oidc import granted, person_of
from hpo_service.auth.oidc.provider import Provider
from hpo_service.core.errors import Forbidden, HpoError, InvalidRequest, Unauthenticated
from hpo_service.formatting.html import page, tag
from hpo_service.services.access import audit, projects

router = APIRouter(prefix="/oidc", include_in_schema=False)

_BEGUN_SECONDS = 600
_SECRET_BYTES = 32
#: a place of ours, and nothing that a browser could take for another site's
_NEXT = re.compile(r"/(?![/\\])[A-Za-z0-9/_.~%?=&+:@-]{0,300}")
Short = Annotated[str, Query(max_length=4096)]


class _Begun(NamedTuple):
    """What the browser brings back beside the provider's answer."""

    state: str
    nonce: str
    verifier: str
    next: str


@router.get("/login")
def begin(request: Request, next: Short = "/") -> Response:
    """Send the browser to the provider."""
    provider: Provider = request.app.state.oidc_provider
    state, nonce, verifier = (secrets.token_urlsafe(_SECRET_BYTES) for _ in range(3))
    begun = _Begun(state, nonce, verifier, _own(next))
    try:
        url = provider.authorization_url(begun.state, begun.nonce, begun.verifier)
    except HpoError as error:
        return _refusal(error)
    response = RedirectResponse(url, 303)
    response.set_cookie(
        _cookie(provider),
        ".".join((*begun[:3], urlsafe_b64encode(begun.next.encode()).decode())),
        max_age=_BEGUN_SECONDS,
        path="/",
        httponly=True,
        samesite="lax",
        secure=_is_secure(provider),
    )
    return response


@router.get("/callback")
def finish(
    request: Request,
    session: UnconfinedSessionDependency,
    code: Short = "",
    state: Short = "",
    iss: Short = "",
    error: Short = "",
) -> Response:
    """Look at who came back, and open a session with the rights that the rules give."""
    provider: Provider = request.app.state.oidc_provider
    try:
        begun = _begun(request.cookies.get(_cookie(provider), ""), state)
        if error or not code:
            known = error if re.fullmatch(r"[a-z_]{1,40}", error) else "no code"
            raise Unauthenticated(f"The identity provider did not let you in ({known}). Begin again.")
        if iss and iss != provider.issuer:
            raise InvalidRequest("the answer is of another identity provider than the question; begin again.")
        claims = provider.claims(code, begun.nonce, begun.verifier)
        secret = _let_in(request, session, claims)
    except HpoError as refused:
        response: Response = _refusal(refused)
    else:
        response = logged_in(secret, begun.next, secure=_is_secure(provider))
    response.delete_cookie(_cookie(provider), path="/", httponly=True, samesite="lax", secure=_is_secure(provider))
    return response


def _let_in(request: Request, session: Session, claims: Mapping[str, Any]) -> str:
    """Open a session; its secret. Raises Forbidden or NotFound if there is nothing here for this person."""
    rights, person = granted(request.app.state.oidc_rules, claims), person_of(claims)
    if rights is None:
        raise Forbidden(f"{person.name} may use no project here; whoever runs this service can add a rule.")
    project_id = projects.id_of(session, rights.project)
    label = f"person {person.name}"
    details = {"by": "oidc", "person": label, "scopes": sorted(rights.scopes)}
    try:
        opened = auth.open_person_session(session, project_id, person.subject, label, rights.scopes)
    except Forbidden as shut_out:
        entry = login_entry(request.scope, project_id, None, details, who=label)
        entry.status = shut_out.status
        audit.add(session, entry, audit.AuditOutcome.REFUSED)
        raise
    audit.watch(session, login_entry(request.scope, project_id, opened.key_id, details))
    return opened.secret


def _begun(cookie: str, state: str) -> _Begun:
    """Raises InvalidRequest if this browser did not begin what comes back, or too long ago."""
    parts = cookie.split(".")
    if len(parts) != len(_Begun._fields) or not hmac.compare_digest(parts[0].encode(), state.encode()):
        raise InvalidRequest(
            "this browser did not begin this login, or more than ten minutes ago, or it is finished; begin again."
        )
    try:
        next = urlsafe_b64decode(parts[3]).decode()
    except ValueError:
        next = "/"
    return _Begun(parts[0], parts[1], parts[2], _own(next))


def _own(next: str) -> str:
    return next if _NEXT.fullmatch(next) else "/"


def _is_secure(provider: Provider) -> bool:
    return provider.redirect_url.startswith("https://")


def _cookie(provider: Provider) -> str:
    """With the prefix, no other host of the domain can put one there."""
    return "__Host-hpo_oidc" if _is_secure(provider) else "hpo_oidc"


def _refusal(error: HpoError) -> Response:
    body = page(
        "Log in",
        tag("h1", "You are not logged in"),
        tag("p", error.detail),
        tag("p", tag("a", "Log in", href=OIDC_LOGIN)),
    )
    return HTMLResponse(body, error.status)
