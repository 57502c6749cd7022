"""API keys of a project: made, rotated, revoked. A label has one live key, and two while it is rotated."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy.orm import Session

from hpo_service.auth.principals import create_key, parse_key
from hpo_service.core.errors import Conflict, Forbidden
from hpo_service.services.access.key_schemas import KeyDocument, KeyState, NewKeyDocument
from hpo_service.services.common.names import require_name
from hpo_service.services.studies.read import read_token
from hpo_service.services.studies.schemas import Page
from hpo_service.storage.queries import audit, keys
from hpo_service.storage.tables import ApiKey


def list_keys(session: Session, project_id: int, *, page_size: int, page_token: str | None) -> Page[KeyDocument]:
    """The newest first, ended ones too."""
    before = None if page_token is None else read_token(page_token)
    rows = keys.newest_first(session, project_id, before_id=before, limit=page_size + 1)
    shown, now = rows[:page_size], keys.now(session)
    return Page[KeyDocument](
        items=[_document(row, now) for row in shown],
        next_page_token=str(shown[-1].id) if len(rows) > page_size else None,
    )


def create(
    session: Session,
    project_id: int,
    label: str,
    scopes: Collection[str],
    *,
    granter: Collection[str],
    lifetime_seconds: int | None,
) -> NewKeyDocument:
    """Make a key. `granter` are the scopes of who asks.

    Raises:
        Forbidden: the key would have a scope that who asks for it does not have.
        Conflict: a live key has this label.
    """
    require_name(label, "key")
    _require_granted(scopes, granter)
    keys.lock(session, project_id, label)
    if known := keys.living(session, project_id, label):
        raise Conflict(
            f"key {known[0].id} has the label {label!r} and lives; rotate it with `hpo key rotate {label}`, revoke it, "
            "or choose another label."
        )
    made = _made(session, project_id, create_key(session, project_id, label, scopes, lifetime_seconds))
    audit.tell(session, f"keys/{made.id}", label=label, scopes=made.scopes)
    return made


def rotate(
    session: Session, project_id: int, label: str, *, granter: Collection[str], overlap_seconds: int
) -> NewKeyDocument:
    """Make a second key of a label, with the scopes and the lifetime of the first, which ends after the overlap.

    Raises:
        Forbidden: the key has a scope that who asks does not have.
        Conflict: no key of this label lives, or two do.
    """
    keys.lock(session, project_id, label)
    known = keys.living(session, project_id, label)
    if not known:
        raise Conflict(f"no live key has the label {label!r}; make one with `hpo key create {label}`.")
    if any(key.subject is not None for key in known):
        raise Conflict(f"{label!r} is of a person who logs in with an identity provider; there is nothing to rotate.")
    if len(known) > 1:
        ids = ", ".join(str(key.id) for key in known)
        raise Conflict(f"{len(known)} keys have the label {label!r} and live ({ids}); revoke all but one first.")
    old = known[0]
    _require_granted(old.scopes, granter)
    lifetime = None if old.expires_at is None else round((old.expires_at - old.created_at).total_seconds())
    made = _made(session, project_id, create_key(session, project_id, label, old.scopes, lifetime))
    keys.end(session, old, overlap_seconds)
    audit.tell(session, f"keys/{old.id}", label=label, replaced_by=made.id)
    return made.model_copy(update={"replaces": _document(old, keys.now(session))})


def rotate_key(
    session: Session, project_id: int, key_id: int, *, granter: Collection[str], overlap_seconds: int
) -> NewKeyDocument:
    """As `rotate`, by the number of the key. Raises NotFound too."""
    label = keys.find(session, project_id, key_id).label
    return rotate(session, project_id, label, granter=granter, overlap_seconds=overlap_seconds)


def revoke(session: Session, project_id: int, key_id: int) -> KeyDocument:
    """End a key at once. Raises NotFound, or Conflict if it is revoked already."""
    key = keys.find(session, project_id, key_id)
    keys.lock(session, project_id, key.label)
    session.refresh(key)
    if key.revoked_at is not None:
        raise Conflict(f"key {key_id} was revoked at {key.revoked_at:%Y-%m-%d %H:%M:%S} UTC already.")
    keys.revoke(session, key)
    audit.tell(session, f"keys/{key_id}", label=key.label)
    return _document(key, keys.now(session))


def _require_granted(scopes: Collection[str], granter: Collection[str]) -> None:
    if beyond := sorted(set(scopes) - set(granter)):
        raise Forbidden(
            f"this API key has no scope {', '.join(beyond)} itself, so it cannot give it to another key; leave it out, "
            "or make the key on the service's machine with `hpo key create`."
        )


def _made(session: Session, project_id: int, key: str) -> NewKeyDocument:
    parsed = parse_key(key)
    assert parsed is not None
    row = keys.find(session, project_id, parsed[0])
    known = _document(row, row.created_at)
    return NewKeyDocument(**{name: getattr(known, name) for name in KeyDocument.model_fields}, key=key)


def _document(row: ApiKey, now: datetime) -> KeyDocument:
    state: KeyState = "live"
    if row.revoked_at is not None:
        state = "revoked"
    elif row.expires_at is not None and row.expires_at <= now:
        state = "expired"
    return KeyDocument(
        id=row.id,
        label=row.label,
        scopes=row.scopes,
        state=state,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )
