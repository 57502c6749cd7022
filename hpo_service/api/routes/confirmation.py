"""`/v1/studies/{name}/confirmation`: the race of the best trials and the baseline."""

from typing import Annotated

from fastapi import APIRouter, Query

from hpo_service.api.http.dependencies import ProjectDependency, SessionDependency
from hpo_service.api.http.scopes import needs
from hpo_service.api.routes.studies import PageToken, StudyName
from hpo_service.api.routes.trials import TrialNumber
from hpo_service.auth.principals import Scope
from hpo_service.services.confirmations import read as confirmations
from hpo_service.services.confirmations.schemas import ConfirmationDocument
from hpo_service.services.studies.schemas import Page
from hpo_service.services.trials import read as trials
from hpo_service.services.trials.schemas import TrialDocument, TrialSummary

router = APIRouter(prefix="/v1/studies/{name}/confirmation", tags=["results"], dependencies=[needs(Scope.STUDY_READ)])


@router.get("", operation_id="get_confirmation", summary="What new seeds say of the best")
def get_confirmation(name: StudyName, session: SessionDependency, project: ProjectDependency) -> ConfirmationDocument:
    """404 before the search has ended, and without `confirm` in the spec."""
    return confirmations.show_confirmation(session, project, name)


@router.get("/trials", operation_id="list_runs", summary="List the runs of a confirmation")
def list_runs(
    name: StudyName,
    session: SessionDependency,
    project: ProjectDependency,
    page_size: Annotated[int, Query(ge=1, le=1000, description="How many at most.")] = 200,
    page_token: PageToken = None,
) -> Page[TrialSummary]:
    """Every run is a trial; what it is a run of says the confirmation."""
    child = confirmations.child_name(session, project, name)
    return trials.list_trials(session, project, child, page_size=page_size, page_token=page_token)


@router.get("/trials/{number}", operation_id="get_run", summary="Show a run of a confirmation")
def get_run(
    name: StudyName, number: TrialNumber, session: SessionDependency, project: ProjectDependency
) -> TrialDocument:
    """The run with its attempts."""
    return trials.show_trial(session, project, confirmations.child_name(session, project, name), number)
