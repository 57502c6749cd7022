"""API keys, login links and browser sessions. Secrets come in as SHA-256 and are never stored otherwise."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, func, select, text, update
from sqlalchemy.orm import Session

from hpo_service.tables import DEFAULT_PROJECT_ID, ApiKey, BrowserToken

_STORED = select(ApiKey.id, ApiKey.project_id, ApiKey.secret_sha256, ApiKey.scopes)


@dataclass(frozen=True, kw_only=True)
class StoredKey:
    """What is known of an API key that was not revoked."""

    id: int
    project_id: int
    secret_sha256: str
    scopes: frozenset[str]

    @property
    def in_default_project(self) -> bool:
        """Whether the key belongs to the first project."""
        return self.project_id == DEFAULT_PROJECT_ID


def add_key(session: Session, project_id: int, label: str, secret_sha256: str, scopes: Collection[str]) -> int:
    """Store a new key; its id."""
    key = ApiKey(project_id=project_id, label=label, secret_sha256=secret_sha256, scopes=sorted(scopes))
    session.add(key)
    session.flush()
    return key.id


def live_key(session: Session, key_id: int) -> StoredKey | None:
    """The key with this id unless it was revoked. The project is not known before, so this query alone has none."""
    row = session.execute(_STORED.where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))).one_or_none()
    return None if row is None else _stored(row)


def add_token(session: Session, key: StoredKey, kind: str, token_sha256: str, lifetime_seconds: int) -> None:
    """Store a login link or a session of the key's owner; expired ones of the project are removed."""
    session.execute(
        delete(BrowserToken).where(
            BrowserToken.project_id == key.project_id, BrowserToken.expires_at < func.clock_timestamp()
        )
    )
    session.add(
        BrowserToken(
            token_sha256=token_sha256,
            project_id=key.project_id,
            kind=kind,
            api_key_id=key.id,
            expires_at=func.clock_timestamp() + text(f"interval '{int(lifetime_seconds)} seconds'"),
        )
    )


def use_login_token(session: Session, token_sha256: str) -> StoredKey | None:
    """Consume a login token: the key it belongs to, once; None if it is unknown, used, expired or its key revoked."""
    used = session.execute(
        update(BrowserToken)
        .where(
            BrowserToken.token_sha256 == token_sha256,
            BrowserToken.kind == "login",
            BrowserToken.used_at.is_(None),
            BrowserToken.expires_at > func.clock_timestamp(),
        )
        .values(used_at=func.clock_timestamp())
        .returning(BrowserToken.api_key_id)
    ).scalar_one_or_none()
    return None if used is None else live_key(session, used)


def live_session(session: Session, token_sha256: str) -> StoredKey | None:
    """The key behind a browser session; None if the session is unknown or expired or the key was revoked."""
    row = session.execute(
        _STORED.join(BrowserToken, BrowserToken.api_key_id == ApiKey.id).where(
            BrowserToken.token_sha256 == token_sha256,
            BrowserToken.kind == "session",
            BrowserToken.expires_at > func.clock_timestamp(),
            ApiKey.revoked_at.is_(None),
        )
    ).one_or_none()
    return None if row is None else _stored(row)


def _stored(row: Row[int, int, str, list[Any]]) -> StoredKey:
    return StoredKey(
        id=row.id, project_id=row.project_id, secret_sha256=row.secret_sha256, scopes=frozenset(row.scopes)
    )
