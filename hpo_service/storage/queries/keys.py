"""API keys, login links and browser sessions. Secrets come in as SHA-256 and are never stored otherwise."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, delete, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from hpo_service.core.errors import NotFound
from hpo_service.storage.tables import ApiKey, BrowserToken

NO_SECRET = ""
"""In the place of a secret's SHA-256, which it never equals."""
_USE_KNOWN_FOR = text("interval '1 minute'")
_UNNOTED = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < func.clock_timestamp() - _USE_KNOWN_FOR)
_LIVE = and_(ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.clock_timestamp()))
_STORED = select(ApiKey.id, ApiKey.project_id, ApiKey.secret_sha256, ApiKey.scopes, _UNNOTED.label("unnoted")).where(
    _LIVE
)
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, :project))")


@dataclass(frozen=True, kw_only=True)
class StoredKey:
    """What is known of an API key that is neither revoked nor expired."""

    id: int
    project_id: int
    secret_sha256: str
    scopes: frozenset[str]
    unnoted: bool  #: nobody wrote within the last minute that it is used


def add_key(
    session: Session,
    project_id: int,
    label: str,
    secret_sha256: str,
    scopes: Collection[str],
    lifetime_seconds: int | None = None,
) -> int:
    """Store a new key; its id."""
    key = ApiKey(
        project_id=project_id,
        label=label,
        secret_sha256=secret_sha256,
        scopes=sorted(scopes),
        expires_at=None if lifetime_seconds is None else _after(lifetime_seconds),
    )
    session.add(key)
    session.flush()
    return key.id


def key_of_person(
    session: Session, project_id: int, subject: str, label: str, scopes: Collection[str], lifetime_seconds: int
) -> StoredKey | None:
    """The key of who is at the identity provider what `subject` says, with these rights now; None if it was revoked."""
    rights = {"label": label, "scopes": sorted(scopes), "expires_at": _after(lifetime_seconds)}
    made = insert(ApiKey).values(project_id=project_id, subject=subject, secret_sha256=NO_SECRET, **rights)
    known = made.on_conflict_do_update(
        index_elements=["project_id", "subject"], set_=rights, where=ApiKey.revoked_at.is_(None)
    )
    key_id = session.execute(known.returning(ApiKey.id)).scalar_one_or_none()
    return None if key_id is None else live_key(session, key_id)


def live_key(session: Session, key_id: int) -> StoredKey | None:
    """The key with this id while it lives. The project is not known before, so this query alone has none."""
    row = session.execute(_STORED.where(ApiKey.id == key_id)).one_or_none()
    return None if row is None else _stored(row)


def note_use(session: Session, key: StoredKey) -> None:
    """Write that the key is used now. Requests that come at the same time do not wait for each other."""
    free = select(ApiKey.id).where(ApiKey.id == key.id, _UNNOTED).with_for_update(skip_locked=True, key_share=True)
    session.execute(
        update(ApiKey)
        .where(ApiKey.id.in_(free), ApiKey.project_id == key.project_id)
        .values(last_used_at=func.clock_timestamp())
    )


def lock(session: Session, project_id: int, label: str) -> None:
    """Make those who change keys of this label wait for each other until the transaction ends."""
    session.execute(_LOCK, {"name": f"key {label}", "project": project_id})


def now(session: Session) -> datetime:
    """The database's clock."""
    at: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return at


def find(session: Session, project_id: int, key_id: int) -> ApiKey:
    """Whatever its state. Raises NotFound."""
    key = session.scalars(select(ApiKey).where(ApiKey.project_id == project_id, ApiKey.id == key_id)).one_or_none()
    if key is None:
        raise NotFound(f"there is no API key {key_id} in this project.")
    return key


def living(session: Session, project_id: int, label: str) -> list[ApiKey]:
    """The keys of a label that are neither revoked nor expired, the newest first."""
    query = select(ApiKey).where(ApiKey.project_id == project_id, ApiKey.label == label, _LIVE)
    return list(session.scalars(query.order_by(ApiKey.id.desc())))


def newest_first(session: Session, project_id: int, *, before_id: int | None, limit: int) -> list[ApiKey]:
    """Up to `limit` keys, ended ones too."""
    query = select(ApiKey).where(ApiKey.project_id == project_id)
    if before_id is not None:
        query = query.where(ApiKey.id < before_id)
    return list(session.scalars(query.order_by(ApiKey.id.desc()).limit(limit)))


def end(session: Session, key: ApiKey, seconds: int) -> None:
    """Let a key end after so many seconds, unless it ends before."""
    ends = func.least(func.coalesce(ApiKey.expires_at, text("'infinity'::timestamptz")), _after(seconds))
    _change(session, key, expires_at=ends)


def revoke(session: Session, key: ApiKey) -> None:
    """End a key at once, with its browser sessions."""
    _change(session, key, revoked_at=func.clock_timestamp())


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
            expires_at=_after(lifetime_seconds),
        )
    )


def end_session(session: Session, token_sha256: str) -> None:
    """End a browser session."""
    session.execute(
        delete(BrowserToken).where(BrowserToken.token_sha256 == token_sha256, BrowserToken.kind == "session")
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
    """The key behind a browser session; None if the session is unknown or expired or the key ended."""
    row = session.execute(
        _STORED.join(BrowserToken, BrowserToken.api_key_id == ApiKey.id).where(
            BrowserToken.token_sha256 == token_sha256,
            BrowserToken.kind == "session",
            BrowserToken.expires_at > func.clock_timestamp(),
        )
    ).one_or_none()
    return None if row is None else _stored(row)


def _after(seconds: int) -> ColumnElement[datetime]:
    return func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)


def _change(session: Session, key: ApiKey, **values: ColumnElement[Any]) -> None:
    session.execute(update(ApiKey).where(ApiKey.project_id == key.project_id, ApiKey.id == key.id).values(values))
    session.refresh(key)


def _stored(row: Row[int, int, str, list[Any], bool]) -> StoredKey:
    return StoredKey(
        id=row.id,
        project_id=row.project_id,
        secret_sha256=row.secret_sha256,
        scopes=frozenset(row.scopes),
        unnoted=row.unnoted,
    )
