"""`/v1/audit`: who changed what in the caller's project."""

from typing import Annotated

from fastapi import APIRouter, Query

from hpo_service.api.http.dependencies import ProjectDependency, SessionDependency
from hpo_service.api.http.scopes import needs
from hpo_service.api.routes.studies import PageSize, PageToken
from hpo_service.auth.principals import Scope
from hpo_service.services.access import audit
from hpo_service.services.access.audit import AuditDocument
from hpo_service.services.studies.schemas import Page
from hpo_service.spec.times import Moment

router = APIRouter(prefix="/v1/audit", tags=["audit"], dependencies=[needs(Scope.AUDIT_READ)])


@router.get("", operation_id="list_audit", summary="List what was changed, the newest first")
def list_audit(
    session: SessionDependency,
    project: ProjectDependency,
    since: Annotated[Moment | None, Query(description="Not before this time, with its time zone.")] = None,
    action: Annotated[
        str | None, Query(description="Only this operation id.", max_length=64, pattern=r"^[a-z_]+$")
    ] = None,
    key_id: Annotated[int | None, Query(description="Only what this key did.", ge=1, lt=2**63)] = None,
    page_size: PageSize = 100,
    page_token: PageToken = None,
) -> Page[AuditDocument]:
    """Every change and every request that was refused, each with the hash of the row before it."""
    return audit.list_rows(
        session, project, since=since, action=action, key_id=key_id, page_size=page_size, page_token=page_token
    )
