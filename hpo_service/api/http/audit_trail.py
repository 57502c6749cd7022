"""Every request that changes something leaves a row in the audit log, and so does every one that is refused with 403.

What changes something leaves its row in its own transaction: the sessions that `dependencies` hands out add it when
they commit (`access.audit.watch`). Here the rest is written, before the answer is sent: what was refused, what failed,
what had nothing to change. Requests of nobody known (401) stay in the service's log.
"""

import logging
import time
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hpo_service.auth.principals import Principal
from hpo_service.services.access import audit
from hpo_service.services.access.audit import AuditEntry, AuditOutcome

log = logging.getLogger(__name__)

SAFE_METHODS = frozenset({"GET", "HEAD"})
#: these are asked like a change, because they have a body
LOOKS_ONLY = frozenset({"validate_study", "suggest_study"})
#: what of a body is kept, next to its SHA-256; nothing that could be a secret
_KEPT = {
    "extend_study": ("budget", "space"),
    "clone_study": ("name",),
    "enqueue_trial": ("parameters",),
    "promote": ("study", "trial", "name"),
    "roll_back_promotion": ("version",),
    "deliver_promotion": ("merge", "quantize", "retrain"),
    "create_key": ("label", "scopes", "expires_in_seconds"),
    "rotate_key": ("overlap_seconds",),
    "create_project": ("name",),
    "set_quota": ("parallel_gpus", "gpu_hours_month", "studies", "stored_bytes"),
}
_ENTRY = "audit_entry"
#: who is refused to look asks again and again; each replica writes it once in so long
_REFUSED_READ_SECONDS = 60.0
_MOST_REFUSED_READS = 1000


class AuditTrail:
    """Writes what no transaction of the request has written."""

    def __init__(self, app: ASGIApp, sessions: sessionmaker[Session]) -> None:
        self._app = app
        self._sessions = sessions
        self._refused_reads: dict[tuple[int | None, str, str], float] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on, and look at how the answer begins."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def send_noted(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                await self._note(scope, message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        except Exception:
            if not begun:
                await self._note(scope, 500)
            raise

    async def _note(self, scope: Scope, status: int) -> None:
        entry = entry_of(scope)
        if entry is None or not _is_owed(scope, entry, status):
            return
        if scope["method"] in SAFE_METHODS and self._was_told(entry):
            return
        entry.action = entry.action or scope["method"].lower()
        entry.status = status
        try:
            await run_in_threadpool(self._write, entry, _outcome(status))
        except SQLAlchemyError:  # nothing was changed, so the answer stands
            log.exception("a row of the audit log was not written: %s", entry.action)

    def _was_told(self, entry: AuditEntry) -> bool:
        read, now = (entry.key_id, entry.action, entry.object), time.monotonic()
        if now - self._refused_reads.get(read, -_REFUSED_READ_SECONDS) < _REFUSED_READ_SECONDS:
            return True
        if len(self._refused_reads) >= _MOST_REFUSED_READS:
            self._refused_reads.clear()
        self._refused_reads[read] = now
        return False

    def _write(self, entry: AuditEntry, outcome: AuditOutcome) -> None:
        with self._sessions.begin() as session:
            audit.add(session, entry, outcome)


def entry_of(scope: Scope) -> AuditEntry | None:
    """What the audit log will say of a request; None while nobody is known to have sent it."""
    state: dict[str, Any] = scope.setdefault("state", {})
    principal: Principal | None = state.get("principal")
    if principal is None:
        return None
    entry: AuditEntry | None = state.get(_ENTRY)
    if entry is None:
        entry = state[_ENTRY] = AuditEntry(
            project_id=principal.project_id,
            who=f"hpo_key_{principal.key_id}",
            key_id=principal.key_id,
            action="",
            object="",
            request_id=state.get("request_id"),
            client=client_of(scope),
        )
    if not entry.action and "route" in scope:
        route = scope["route"]
        entry.action = str(getattr(route, "operation_id", None) or getattr(route, "name", ""))
        entry.status = getattr(route, "status_code", None) or 200
    if not entry.object:
        entry.object = _object(scope)
    return entry


def login_entry(
    scope: Scope, project_id: int, key_id: int | None, details: dict[str, Any], *, who: str | None = None
) -> AuditEntry:
    """Somebody, not known before, logs in; `who` it is where that is no key."""
    return AuditEntry(
        project_id=project_id,
        who=who or f"hpo_key_{key_id}",
        key_id=key_id,
        action="log_in",
        object=_object(scope),
        status=200,
        request_id=scope["state"].get("request_id"),
        client=client_of(scope),
        details=details,
    )


def changing_entry(scope: Scope) -> AuditEntry | None:
    """As `entry_of`, for requests that may change something only."""
    return None if scope["method"] in SAFE_METHODS else entry_of(scope)


def note_body(scope: Scope, raw: bytes, document: Mapping[str, Any]) -> None:
    """Put into the entry what was asked for."""
    entry = changing_entry(scope)
    if entry is not None:
        kept = {name: document[name] for name in _KEPT.get(entry.action, ()) if name in document}
        entry.details |= kept | {"body_sha256": sha256(raw).hexdigest()}


def client_of(scope: Scope) -> str | None:
    """Address of who is connected; behind a proxy the proxy's, unless it is trusted to say whose."""
    client = scope.get("client")
    return None if client is None else str(client[0])


def _is_owed(scope: Scope, entry: AuditEntry, status: int) -> bool:
    if status == 403:
        return True
    if scope["method"] in SAFE_METHODS or entry.recorded or "route" not in scope:
        return False
    if status in (405, 503):  # the address does not do this; nothing can be written
        return False
    return status >= 400 or entry.action not in LOOKS_ONLY


def _outcome(status: int) -> AuditOutcome:
    if status >= 500:
        return AuditOutcome.FAILED
    return AuditOutcome.REFUSED if status >= 400 else AuditOutcome.UNCHANGED


def _object(scope: Scope) -> str:
    """The address without what is done there: `studies/first` of `/v1/studies/first:pause`."""
    template, path = getattr(scope.get("route"), "path_format", ""), str(scope["path"])
    _, colon, verb = template.rpartition(":")
    if colon and "}" not in verb and "/" not in verb:
        path = path.removesuffix(f":{verb}")
    return path.removeprefix("/v1").removeprefix("/")
