"""`/v1/studies/{name}/trials`: what was tried, and what it left behind."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from starlette.responses import StreamingResponse

from hpo_service.api.http.bodies import JsonObject, body_of, checked
from hpo_service.api.http.dependencies import ProjectDependency, SessionDependency, SessionsDependency, StoreDependency
from hpo_service.api.http.scopes import needs
from hpo_service.api.routes.studies import IdempotencyKey, PageToken, StudyName
from hpo_service.auth.principals import Scope
from hpo_service.services.common.idempotency import Repetition
from hpo_service.services.studies import commands as steering
from hpo_service.services.studies.schemas import Page, StudyDocument
from hpo_service.services.trials import artifacts
from hpo_service.services.trials import read as trials
from hpo_service.services.trials.schemas import EnqueueRequest, TrialDocument, TrialSummary

router = APIRouter(prefix="/v1/studies/{name}/trials", tags=["trials"])

TrialNumber = Annotated[int, Path(description="Number of the trial, from 0.", ge=0, lt=2**31)]


@router.get("", operation_id="list_trials", summary="List trials by number", dependencies=[needs(Scope.STUDY_READ)])
def list_trials(
    name: StudyName,
    session: SessionDependency,
    project: ProjectDependency,
    page_size: Annotated[int, Query(ge=1, le=1000, description="How many at most.")] = 200,
    page_token: PageToken = None,
    newest_first: Annotated[bool, Query(description="The highest numbers first.")] = False,
) -> Page[TrialSummary]:
    """A page of trials."""
    return trials.list_trials(
        session, project, name, page_size=page_size, page_token=page_token, newest_first=newest_first
    )


@router.post(
    "",
    operation_id="enqueue_trial",
    summary="Enqueue a known-good point",
    status_code=202,
    openapi_extra=body_of("EnqueueRequest"),
    dependencies=[needs(Scope.STUDY_WRITE)],
)
def enqueue_trial(
    name: StudyName,
    document: JsonObject,
    session: SessionDependency,
    project: ProjectDependency,
    idempotency_key: IdempotencyKey = None,
) -> StudyDocument:
    """Real values; what the point leaves out is sampled."""
    request = checked(EnqueueRequest, document)
    repetition = Repetition(project, idempotency_key, f"enqueue {name}", document)
    if (known := repetition.answer(session)) is not None:
        return StudyDocument.model_validate(known)
    study = steering.enqueue(session, project, name, request.parameters)
    repetition.remember(session, 202, study.model_dump(mode="json"))
    return study


@router.get("/{number}", operation_id="get_trial", summary="Show a trial", dependencies=[needs(Scope.STUDY_READ)])
def get_trial(
    name: StudyName, number: TrialNumber, session: SessionDependency, project: ProjectDependency
) -> TrialDocument:
    """The trial with its losses and attempts."""
    return trials.show_trial(session, project, name, number)


@router.get(
    "/{number}/adapter",
    operation_id="download_adapter",
    summary="Download a trial's adapter",
    response_class=Response,
    responses={200: {"description": "PEFT adapter: weights and config", "content": {"application/x-tar": {}}}},
    dependencies=[needs(Scope.STUDY_READ)],
)
def download_adapter(
    name: StudyName,
    number: TrialNumber,
    sessions: SessionsDependency,
    project: ProjectDependency,
    store: StoreDependency,
) -> StreamingResponse:
    """From the newest snapshot that is whole; a tar file that PEFT loads once it is unpacked."""
    with sessions.begin() as session:
        snapshots = artifacts.find_snapshots(session, project, name, number)
    archive = artifacts.open_adapter(snapshots, store)
    headers = {
        "Content-Disposition": f'attachment; filename="{name}-{number}-adapter.tar"',
        "Content-Length": str(archive.size_bytes),
        "X-Examples-Seen": str(archive.examples_seen),
    }
    return StreamingResponse(archive.chunks(), media_type="application/x-tar", headers=headers)


@router.get(
    "/{number}/logs",
    operation_id="get_trial_log",
    summary="The end of a trial's log",
    response_class=Response,
    responses={200: {"description": "One JSON object a line", "content": {"text/plain": {}}}},
    dependencies=[needs(Scope.STUDY_READ)],
)
def get_trial_log(
    name: StudyName,
    number: TrialNumber,
    sessions: SessionsDependency,
    project: ProjectDependency,
    store: StoreDependency,
    tail: Annotated[int, Query(ge=1, le=100_000, description="How many lines.")] = 1000,
) -> Response:
    """A line an optimizer step: step, examples, loss, gradient norm, learning rate."""
    with sessions.begin() as session:
        folder = artifacts.find_log(session, project, name, number)
    content = artifacts.read_tail(store, folder, tail)
    return Response(content, media_type="text/plain; charset=utf-8")
