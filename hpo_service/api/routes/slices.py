"""`/v1/studies/{name}/slices`: what was dispatched for a study."""

from typing import Annotated

from fastapi import APIRouter, Query

from hpo_service.api.http.dependencies import ProjectDependency, SessionDependency
from hpo_service.api.http.scopes import needs
from hpo_service.api.routes.studies import PageToken, StudyName
from hpo_service.auth.principals import Scope
from hpo_service.services.execution import slices
from hpo_service.services.execution.schemas import SliceDocument, SliceState
from hpo_service.services.studies.schemas import Page

router = APIRouter(prefix="/v1/studies/{name}/slices", tags=["trials"], dependencies=[needs(Scope.STUDY_READ)])


@router.get("", operation_id="list_slices", summary="List slices in the order in which they were made")
def list_slices(
    name: StudyName,
    session: SessionDependency,
    project: ProjectDependency,
    page_size: Annotated[int, Query(ge=1, le=1000, description="How many at most.")] = 200,
    page_token: PageToken = None,
    state: Annotated[SliceState | None, Query(description="Only those in this state.")] = None,
) -> Page[SliceDocument]:
    """A page of slices, each with its retries and the worker of its last attempt."""
    return slices.list_slices(session, project, name, page_size=page_size, page_token=page_token, state=state)
