"""`/studies/{name}` and `/studies/{name}/trials/{number}`: a study and a trial as pages."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import HTMLResponse

from hpo_service.api.http.dependencies import ProjectDependency, SessionDependency, SettingsDependency
from hpo_service.api.http.scopes import needs
from hpo_service.api.routes.console.answers import AssetsDependency, ViewerDependency, answer
from hpo_service.api.routes.studies import StudyName
from hpo_service.api.routes.trials import TrialNumber
from hpo_service.auth.principals import Scope
from hpo_service.console.study import study_page
from hpo_service.console.trial import trial_page
from hpo_service.services.trials.read import show_trial
from hpo_service.services.views.study_page import Order, read_study_page

router = APIRouter(prefix="/studies/{name}", dependencies=[needs(Scope.STUDY_READ)])


@router.get("")
def show_study(
    name: StudyName,
    session: SessionDependency,
    project: ProjectDependency,
    settings: SettingsDependency,
    viewer: ViewerDependency,
    assets: AssetsDependency,
    order: Order = "best",
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
) -> HTMLResponse:
    """The page of a study, with the `page`-th part of its trials."""
    found = read_study_page(session, project, name, order=order, page=page)
    return answer(study_page(found, viewer, assets, mlflow=settings.mlflow_pages()))


@router.get("/trials/{number}")
def show_trial_page(
    name: StudyName,
    number: TrialNumber,
    session: SessionDependency,
    project: ProjectDependency,
    viewer: ViewerDependency,
    assets: AssetsDependency,
) -> HTMLResponse:
    """The page of a trial, with its attempts."""
    return answer(trial_page(name, show_trial(session, project, name, number), viewer, assets))
