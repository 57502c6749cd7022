"""`/v1/data-checks`: reports about data, before and after a study is created."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response

from hpo_service.api.http.dependencies import ProjectDependency, SessionDependency
from hpo_service.api.http.scopes import needs
from hpo_service.api.routes.studies import StudyName
from hpo_service.auth.principals import Scope
from hpo_service.services.data import checks
from hpo_service.services.studies.spec_schemas import DataCheckDocument
from trainer.quality.render import markdown
from trainer.spec import QualityReport

router = APIRouter(dependencies=[needs(Scope.STUDY_READ)])

_MARKDOWN = "text/markdown"
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The check and its report", "content": {"text/markdown": {}}, "model": DataCheckDocument}
}
JobId = Annotated[int, Path(description="`job` of an answer about a data check.", ge=1, lt=2**63)]
ReportFormat = Annotated[str | None, Query(pattern="^(json|md)$", description="json or md; default: by `Accept`.")]
Accept = Annotated[str, Header(include_in_schema=False)]


@router.get(
    "/v1/data-checks/{job}",
    operation_id="get_data_check",
    summary="Show a data check",
    tags=["data checks"],
    response_model=None,
    responses=_ANSWERS,
)
def get_data_check(
    job: JobId,
    session: SessionDependency,
    project: ProjectDependency,
    format: ReportFormat = None,
    accept: Accept = "",
) -> Response | DataCheckDocument:
    """Pending until a worker has looked at all rows."""
    return _answer(checks.show(session, project, job), format, accept)


@router.get(
    "/v1/studies/{name}/data-check",
    operation_id="get_study_data_check",
    summary="Show the check of a study's data",
    tags=["data checks"],
    response_model=None,
    responses=_ANSWERS,
)
def get_study_data_check(
    name: StudyName,
    session: SessionDependency,
    project: ProjectDependency,
    format: ReportFormat = None,
    accept: Accept = "",
) -> Response | DataCheckDocument:
    """The report that the study's first slice waits or waited for."""
    return _answer(checks.show_of_study(session, project, name), format, accept)


def _answer(check: DataCheckDocument, format: str | None, accept: str) -> Response | DataCheckDocument:
    wanted = format or ("md" if _MARKDOWN in accept else "json")
    if wanted == "json":
        return check
    if check.report is None:
        text = f"The data check is {check.state}. {check.message}\n"
    else:
        text = markdown(QualityReport.model_validate(check.report))
    return Response(text, media_type=f"{_MARKDOWN}; charset=utf-8")
