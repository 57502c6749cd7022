"""`/workers`: who does the work, and taking workers out of it."""

from fastapi import APIRouter
from starlette.responses import HTMLResponse

from hpo_service.api.http.dependencies import ProjectDependency, SessionDependency
from hpo_service.api.http.scopes import needs
from hpo_service.api.routes.console.answers import AssetsDependency, ViewerDependency, answer
from hpo_service.auth.principals import Scope
from hpo_service.console.workers import workers_page
from hpo_service.services.execution.workers import list_workers

router = APIRouter(dependencies=[needs(Scope.STUDY_READ)])

_SHOWN = 200


@router.get("/workers")
def show_workers(
    session: SessionDependency, project: ProjectDependency, viewer: ViewerDependency, assets: AssetsDependency
) -> HTMLResponse:
    """The page."""
    found = list_workers(session, project, page_size=_SHOWN, page_token=None, gone=False)
    return answer(workers_page(found.items, viewer, assets))
