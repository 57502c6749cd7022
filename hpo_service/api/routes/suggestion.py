"""`/v1/studies:suggest`: a spec for a model and data."""

from fastapi import APIRouter

from hpo_service.api.http.bodies import JsonObject, body_of, checked
from hpo_service.api.http.dependencies import ProjectDependency, SessionsDependency, SettingsDependency
from hpo_service.api.http.scopes import needs
from hpo_service.auth.principals import Scope
from hpo_service.services.studies.suggestion import SuggestionDocument, SuggestRequest, look, suggest

router = APIRouter(dependencies=[needs(Scope.STUDY_READ)])


@router.post(
    "/v1/studies:suggest",
    operation_id="suggest_study",
    summary="Suggest a study for a model and data",
    openapi_extra=body_of("SuggestRequest"),
    tags=["studies"],
)
def suggest_study(
    document: JsonObject, sessions: SessionsDependency, project: ProjectDependency, settings: SettingsDependency
) -> SuggestionDocument:
    """Space, search, budget and expected cost, from the sizes of model and data and from earlier studies."""
    asked = look(checked(SuggestRequest, document), settings.allowed_roots())
    with sessions.begin() as session:
        return suggest(session, project, asked, settings.usd_per_gpu_hour)
