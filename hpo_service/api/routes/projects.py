"""`/v1/projects`: who is kept apart from whom."""

from fastapi import APIRouter, Depends

from hpo_service.api.http.bodies import JsonObject, body_of, checked
from hpo_service.api.http.dependencies import PrincipalDependency, ProjectDependency, UnconfinedSessionDependency
from hpo_service.api.http.scopes import needs
from hpo_service.api.routes.studies import IdempotencyKey, PageSize, PageToken
from hpo_service.auth.principals import Scope
from hpo_service.services.access import projects
from hpo_service.services.access.key_schemas import CreateProjectRequest, ProjectDocument
from hpo_service.services.common.idempotency import Repetition
from hpo_service.services.studies.schemas import Page


def _first_project(caller: PrincipalDependency) -> None:
    projects.require_first(caller)


router = APIRouter(prefix="/v1/projects", tags=["projects"], dependencies=[needs(Scope.ADMIN), Depends(_first_project)])


@router.get("", operation_id="list_projects", summary="List projects, the oldest first")
def list_projects(
    session: UnconfinedSessionDependency, page_size: PageSize = 100, page_token: PageToken = None
) -> Page[ProjectDocument]:
    """For admins of project default."""
    return projects.list_projects(session, page_size=page_size, page_token=page_token)


@router.post(
    "",
    operation_id="create_project",
    summary="Make a project",
    status_code=201,
    openapi_extra=body_of("CreateProjectRequest"),
)
def create_project(
    document: JsonObject,
    session: UnconfinedSessionDependency,
    project: ProjectDependency,
    idempotency_key: IdempotencyKey = None,
) -> ProjectDocument:
    """For admins of project default. A first key of it is made with `hpo key create --project`."""
    request = checked(CreateProjectRequest, document)
    repetition = Repetition(project, idempotency_key, "create project", document)
    if (known := repetition.answer(session)) is not None:
        return ProjectDocument.model_validate(known)
    made = projects.create(session, request.name)
    repetition.remember(session, 201, made.model_dump(mode="json"))
    return made
