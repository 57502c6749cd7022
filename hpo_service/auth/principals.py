"""Who is calling: API keys for programs, one-time login links and a session cookie for browsers."""

import hmac
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import NamedTuple

from sqlalchemy.orm import Session

from hpo_service.core.errors import Forbidden, Unauthenticated
from hpo_service.storage.queries import keys
from hpo_service.storage.tables import DEFAULT_PROJECT_ID

LOGIN_SECONDS = 600
SESSION_SECONDS = 12 * 3600
_KEY = re.compile(r"hpo_key_([1-9][0-9]{0,17})_([A-Za-z0-9_-]{43})")
_SECRET_BYTES = 32


class Scope(StrEnum):
    """What a key may do, all of it inside its project. Every route wants exactly one."""

    STUDY_READ = "study:read"  #: look at everything but keys and the audit log
    STUDY_WRITE = "study:write"  #: create, steer and delete studies
    PROMOTE = "promote"  #: make parameters a promotion, go back to an earlier one, deliver
    APPROVE = "approve"  #: consent to another key's promotion
    ADMIN = "admin"  #: keys of the project and workers; in project `default` also projects and metrics
    AUDIT_READ = "audit:read"  #: who changed what


@dataclass(frozen=True, kw_only=True)
class Principal:
    """An authenticated caller. Those of the first project, `default`, administer the others."""

    project_id: int
    key_id: int
    scopes: frozenset[str]

    @property
    def in_default_project(self) -> bool:
        """Whether the caller belongs to the first project."""
        return self.project_id == DEFAULT_PROJECT_ID

    def require(self, scope: Scope) -> None:
        """Raises Forbidden if the key does not have the scope."""
        if scope not in self.scopes:
            raise Forbidden(
                f"this API key has no scope '{scope}'; use another one, or make one on the service's machine with "
                f"`hpo key create LABEL --scope {scope}`."
            )


class BrowserSession(NamedTuple):
    """A browser session that was just opened: what its cookie holds, and whose it is."""

    secret: str
    project_id: int
    key_id: int


def create_key(
    session: Session,
    project_id: int,
    label: str,
    scopes: Collection[str] = tuple(Scope),
    lifetime_seconds: int | None = None,
) -> str:
    """Make an API key of the project. The answer is the only time it can be seen."""
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    key_id = keys.add_key(session, project_id, label, digest(secret), scopes, lifetime_seconds)
    return f"hpo_key_{key_id}_{secret}"


def create_login_link(session: Session, key: str, base_url: str) -> str:
    """A link that logs one browser in, once, within ten minutes, with the rights of `key`.

    Raises:
        Unauthenticated: the key is not valid.
    """
    token = secrets.token_urlsafe(_SECRET_BYTES)
    keys.add_token(session, _stored_key(session, key), "login", digest(token), LOGIN_SECONDS)
    return f"{base_url.rstrip('/')}/login?token={token}"


def open_browser_session(session: Session, login_token: str) -> BrowserSession | None:
    """Consume a login token and open a session; None if the token is not (or no longer) valid."""
    key = keys.use_login_token(session, digest(login_token))
    return None if key is None else _opened(session, key)


def open_person_session(
    session: Session, project_id: int, subject: str, label: str, scopes: Collection[str]
) -> BrowserSession:
    """Open a session for somebody whom an identity provider knows as `subject`, with these rights from now on.

    It is one key for a person in a project, whenever they log in: nobody approves what they promoted themselves.

    Raises:
        Forbidden: the person's key was revoked.
    """
    key = keys.key_of_person(session, project_id, subject, label, scopes, SESSION_SECONDS)
    if key is None:
        raise Forbidden(f"{label} may not log in to this project any more: their key was revoked.")
    return _opened(session, key)


def end_browser_session(session: Session, token: str) -> None:
    """Log a browser out."""
    keys.end_session(session, digest(token))


def authenticate_key(session: Session, key: str) -> Principal:
    """The owner of an API key; that it is used is written, at most once a minute. Raises Unauthenticated."""
    return _used(session, _stored_key(session, key))


def authenticate_browser(session: Session, token: str) -> Principal:
    """The owner of a browser session, as `authenticate_key`. Raises Unauthenticated."""
    stored = keys.live_session(session, digest(token))
    if stored is None:
        raise Unauthenticated("The browser session has ended. Open a new login link.")
    return _used(session, stored)


def is_live(session: Session, caller: Principal) -> bool:
    """Whether the caller's key has neither been revoked nor expired since it was looked at."""
    return keys.live_key(session, caller.key_id) is not None


def digest(secret: str) -> str:
    """What is stored of a secret."""
    return sha256(secret.encode()).hexdigest()


def parse_key(key: str) -> tuple[int, str] | None:
    """Id and secret of a well-formed key."""
    match = _KEY.fullmatch(key)
    return (int(match[1]), match[2]) if match else None


def _opened(session: Session, key: keys.StoredKey) -> BrowserSession:
    token = secrets.token_urlsafe(_SECRET_BYTES)
    keys.add_token(session, key, "session", digest(token), SESSION_SECONDS)
    return BrowserSession(token, key.project_id, key.id)


def _used(session: Session, key: keys.StoredKey) -> Principal:
    if key.unnoted:
        keys.note_use(session, key)
    return Principal(project_id=key.project_id, key_id=key.id, scopes=key.scopes)


def _stored_key(session: Session, key: str) -> keys.StoredKey:
    parsed = parse_key(key)
    stored = keys.live_key(session, parsed[0]) if parsed else None
    if parsed is None or stored is None or not hmac.compare_digest(digest(parsed[1]), stored.secret_sha256):
        raise Unauthenticated("The API key is not valid. Send a key made by `hpo key create` as a Bearer token.")
    return stored
