"""`/v1/keys`: API keys of the caller's project."""

from typing import Annotated

from fastapi import APIRouter, Path

from hpo_service.api.http.addresses import ID
from hpo_service.api.http.bodies import JsonObject, body_of, checked
from hpo_service.api.http.dependencies import PrincipalDependency, ProjectDependency, SessionDependency
from hpo_service.api.http.scopes import needs
from hpo_service.api.routes.studies import PageSize, PageToken
from hpo_service.auth.principals import Scope
from hpo_service.services.access import keys
from hpo_service.services.access.key_schemas import CreateKeyRequest, KeyDocument, NewKeyDocument, RotateKeyRequest
from hpo_service.services.studies.schemas import Page

router = APIRouter(prefix="/v1/keys", tags=["keys"], dependencies=[needs(Scope.ADMIN)])

KeyId = Annotated[int, Path(description="The number in `hpo_key_<id>_<secret>`.", ge=1, lt=2**63)]


@router.get("", operation_id="list_keys", summary="List API keys, the newest first")
def list_keys(
    session: SessionDependency, project: ProjectDependency, page_size: PageSize = 100, page_token: PageToken = None
) -> Page[KeyDocument]:
    """Without their secrets; those that ended too."""
    return keys.list_keys(session, project, page_size=page_size, page_token=page_token)


@router.post(
    "",
    operation_id="create_key",
    summary="Make an API key",
    status_code=201,
    openapi_extra=body_of("CreateKeyRequest"),
)
def create_key(document: JsonObject, session: SessionDependency, caller: PrincipalDependency) -> NewKeyDocument:
    """The answer is the only time that the whole key can be seen. It gets at most the scopes of the caller's key."""
    request = checked(CreateKeyRequest, document)
    return keys.create(
        session,
        caller.project_id,
        request.label,
        request.scopes,
        granter=caller.scopes,
        lifetime_seconds=request.expires_in_seconds,
    )


@router.post(
    "/{id}:rotate",
    operation_id="rotate_key",
    summary="Replace an API key",
    status_code=201,
    openapi_extra=body_of("RotateKeyRequest"),
)
def rotate_key(
    id: KeyId, document: JsonObject, session: SessionDependency, caller: PrincipalDependency
) -> NewKeyDocument:
    """A second key with the same label, scopes and lifetime; the first one works until the overlap is over."""
    request = checked(RotateKeyRequest, document)
    return keys.rotate_key(
        session, caller.project_id, id, granter=caller.scopes, overlap_seconds=request.overlap_seconds
    )


@router.delete(f"/{ID}", operation_id="revoke_key", summary="Revoke an API key")
def revoke_key(id: KeyId, session: SessionDependency, project: ProjectDependency) -> KeyDocument:
    """At once, with the browser sessions that it opened."""
    return keys.revoke(session, project, id)
