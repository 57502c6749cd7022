"""How credentials travel: as Bearer tokens of programs, as cookies of browsers. For the rest see `auth.principals`."""

from hpo_service.auth.principals import (
    LOGIN_SECONDS,
    SESSION_SECONDS,
    Principal,
    authenticate_browser,
    authenticate_key,
    create_key,
    create_login_link,
    end_browser_session,
    open_browser_session,
    open_person_session,
)

__all__ = [
    "COOKIE",
    "LOGIN_SECONDS",
    "SESSION_SECONDS",
    "Principal",
    "authenticate_browser",
    "authenticate_key",
    "bearer",
    "create_key",
    "create_login_link",
    "end_browser_session",
    "open_browser_session",
    "open_person_session",
]

COOKIE = "hpo_session"


def bearer(header: str) -> str | None:
    """The key of an `Authorization: Bearer` header."""
    scheme, _, key = header.partition(" ")
    return key.strip() if scheme.lower() == "bearer" and key.strip() else None
