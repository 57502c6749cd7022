"""`/v1/studies/{name}/…`: why the search did what it did, and what mattered."""

from fastapi import APIRouter

from hpo_service.api.http.dependencies import ProjectDependency, SessionDependency
from hpo_service.api.http.scopes import needs
from hpo_service.api.routes.studies import PageSize, PageToken, StudyName
from hpo_service.auth.principals import Scope
from hpo_service.services.insights import decisions, importances, pareto
from hpo_service.services.insights.schemas import DecisionDocument, ImportancesDocument, ParetoDocument
from hpo_service.services.studies.schemas import Page
from hpo_service.services.trials import optuna_copy
from hpo_service.services.trials.schemas import OptunaTrials

router = APIRouter(prefix="/v1/studies/{name}", tags=["insight"], dependencies=[needs(Scope.STUDY_READ)])


@router.get("/decisions", operation_id="list_decisions", summary="Every decision of the search")
def list_decisions(
    name: StudyName,
    session: SessionDependency,
    project: ProjectDependency,
    page_size: PageSize = 200,
    page_token: PageToken = None,
) -> Page[DecisionDocument]:
    """A page of decisions in order: what was chosen, the numbers behind it, what came of it."""
    return decisions.list_decisions(session, project, name, page_size=page_size, page_token=page_token)


@router.get("/importances", operation_id="get_importances", summary="Which parameters mattered")
def get_importances(name: StudyName, session: SessionDependency, project: ProjectDependency) -> ImportancesDocument:
    """Over trials at all rungs, paused and pruned ones too; and ranges that the best trials would leave."""
    return importances.show_importances(session, project, name)


@router.get("/optuna", operation_id="copy_optuna_study", summary="The study as Optuna's tables have it")
def copy_optuna_study(
    name: StudyName,
    session: SessionDependency,
    project: ProjectDependency,
    page_size: PageSize = 200,
    page_token: PageToken = None,
) -> OptunaTrials:
    """A page of trials with parameters, distributions, attributes and losses, for a notebook to make the same study."""
    return optuna_copy.read_optuna_trials(session, project, name, page_size=page_size, page_token=page_token)


@router.get("/pareto", operation_id="get_pareto", summary="The Pareto front of the objectives")
def get_pareto(name: StudyName, session: SessionDependency, project: ProjectDependency) -> ParetoDocument:
    """Trials that no other one beats in all of the study's objectives; paused ones are provisional, at their rung."""
    return pareto.show_pareto(session, project, name)
