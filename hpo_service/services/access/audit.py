"""The audit log as documents, and whether its chains hold."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import Field
from sqlalchemy.orm import Session

from hpo_service.services.common.schemas import Document
from hpo_service.services.studies.read import read_token
from hpo_service.services.studies.schemas import Page
from hpo_service.storage.audit_chain import Head, Verdict, check
from hpo_service.storage.queries import audit
from hpo_service.storage.queries.audit import AuditEntry, AuditOutcome, add, tell, watch, watching

__all__ = [
    "AuditDocument",
    "AuditEntry",
    "AuditOutcome",
    "add",
    "list_rows",
    "tell",
    "verify",
    "watch",
    "watching",
]


class AuditDocument(Document):
    """Somebody changed something, or was refused."""

    number: int
    """Counts the rows of the project from 1."""
    at: datetime
    who: str
    """`hpo_key_<id>`, or the user of the service's machine."""
    key_id: int | None
    """null: done on the service's machine, without a key."""
    action: str
    """The operation id of the API's route."""
    object: str
    outcome: AuditOutcome
    """done: changed, in the same transaction as this row; unchanged: nothing was to be changed; refused; failed."""
    status: int | None
    """Of the HTTP answer; null: it was no request."""
    request_id: str | None
    """`X-Request-ID` of the answer, as in the log."""
    client: str | None
    """Address that the request came from."""
    details: Mapping[str, Any] = Field(description="What was asked for, without secrets.")
    previous: str
    """`hash` of the row before."""
    hash: str
    """SHA-256 of all of the above, with `project_id`, as canonical JSON."""


def list_rows(
    session: Session,
    project_id: int,
    *,
    since: datetime | None,
    action: str | None,
    key_id: int | None,
    page_size: int,
    page_token: str | None,
) -> Page[AuditDocument]:
    """The newest first."""
    before = None if page_token is None else read_token(page_token)
    rows = audit.newest_first(
        session, project_id, before=before, since=since, action=action, key_id=key_id, limit=page_size + 1
    )
    shown = rows[:page_size]
    names = [name for name in AuditDocument.model_fields if name != "details"]
    return Page[AuditDocument](
        items=[
            AuditDocument(**{name: getattr(row, name) for name in names}, details=json.loads(row.details))
            for row in shown
        ],
        next_page_token=str(shown[-1].number) if len(rows) > page_size else None,
    )


def verify(session: Session, project_id: int, known: Head | None = None) -> Verdict:
    """Recompute a project's chain, row by row. `known` is a row that was written down elsewhere.

    Rows and end have to be of one moment: the transaction must be REPEATABLE READ.
    """
    return check(audit.links(session, project_id), audit.head(session, project_id), known)
