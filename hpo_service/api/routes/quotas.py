"""`/v1/projects/{name}/quota`: what a project may use at most."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from hpo_service.api.http.bodies import JsonObject, body_of, checked
from hpo_service.api.http.dependencies import PrincipalDependency, UnconfinedSessionDependency
from hpo_service.api.http.if_match import RequiredMatch
from hpo_service.api.http.scopes import needs
from hpo_service.auth.principals import Scope
from hpo_service.services.access import quotas
from hpo_service.services.access.quota_schemas import QuotaDocument, SetQuotaRequest
from hpo_service.spec.study import NAME_PATTERN

router = APIRouter(prefix="/v1/projects/{name}/quota", tags=["projects"], dependencies=[needs(Scope.ADMIN)])

ProjectName = Annotated[str, Path(description="Name of the project.", pattern=NAME_PATTERN)]


@router.get("", operation_id="get_quota", summary="Show a project's quota")
def get_quota(
    name: ProjectName, session: UnconfinedSessionDependency, caller: PrincipalDependency, response: Response
) -> QuotaDocument:
    """Its limits and what it uses of them. Admins of project default see every project's, others their own's."""
    return _tagged(quotas.show_quota(session, caller, name), response)


@router.put("", operation_id="set_quota", summary="Set a project's quota", openapi_extra=body_of("SetQuotaRequest"))
def set_quota(
    name: ProjectName,
    document: JsonObject,
    session: UnconfinedSessionDependency,
    caller: PrincipalDependency,
    if_match: RequiredMatch,
    response: Response,
) -> QuotaDocument:
    """All limits at once, for admins of project default. Nothing that runs is stopped."""
    quota = quotas.replace_quota(session, caller, name, checked(SetQuotaRequest, document), if_match=if_match)
    return _tagged(quota, response)


def _tagged(quota: QuotaDocument, response: Response) -> QuotaDocument:
    response.headers["ETag"] = quotas.etag(quota)
    return quota
