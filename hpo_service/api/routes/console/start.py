"""`/`: all studies, what runs, what waits, what happened."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import HTMLResponse

from hpo_service.api.http.dependencies import ProjectDependency, SessionDependency
from hpo_service.api.http.scopes import needs
from hpo_service.api.routes.console.answers import AssetsDependency, answer
from hpo_service.auth.principals import Scope
from hpo_service.console.start import start_page
from hpo_service.services.views.start_page import read_overview

router = APIRouter(dependencies=[needs(Scope.STUDY_READ)])


@router.get("/")
def show_start(
    session: SessionDependency,
    project: ProjectDependency,
    assets: AssetsDependency,
    older: Annotated[str | None, Query(max_length=32)] = None,
) -> HTMLResponse:
    """The page; `older` is where its list of ended studies begins."""
    return answer(start_page(read_overview(session, project, older=older), assets))
