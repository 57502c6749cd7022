"""`/v1/studies/{name}/report`: a study as one document for people."""

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Response

from hpo_service.api.http.dependencies import ProjectDependency, SessionDependency
from hpo_service.api.http.scopes import needs
from hpo_service.api.routes.studies import StudyName
from hpo_service.auth.principals import Scope
from hpo_service.reports import render_html, render_markdown
from hpo_service.services.reports.read import read_report

router = APIRouter(prefix="/v1/studies/{name}", tags=["results"], dependencies=[needs(Scope.STUDY_READ)])

_MARKDOWN = "text/markdown"
_HTML = "text/html"


@router.get(
    "/report",
    operation_id="get_report",
    summary="The study as one document",
    response_class=Response,
    responses={200: {"description": "The report", "content": {_HTML: {}, _MARKDOWN: {}}}},
)
def get_report(
    name: StudyName,
    session: SessionDependency,
    project: ProjectDependency,
    format: Annotated[
        Literal["html", "markdown"] | None, Query(description="Without it, `Accept` decides; HTML if that does not.")
    ] = None,
    accept: Annotated[str, Header(description=f"`{_MARKDOWN}` for Markdown.", max_length=1000)] = "",
) -> Response:
    """HTML with its plots and without scripts, or Markdown. The text is whole in itself and can be kept."""
    wants_markdown = _MARKDOWN in accept and _HTML not in accept if format is None else format == "markdown"
    report = read_report(session, project, name)
    text, kind = (render_markdown(report), _MARKDOWN) if wants_markdown else (render_html(report), _HTML)
    return Response(text, media_type=f"{kind}; charset=utf-8", headers={"Vary": "Accept"})
