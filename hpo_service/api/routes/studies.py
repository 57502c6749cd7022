"""`/v1/studies`: create, look, change, steer."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Response
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.api.http.addresses import NAME
from hpo_service.api.http.bodies import JsonObject, body_of, checked
from hpo_service.api.http.dependencies import (
    PrincipalDependency,
    ProjectDependency,
    SessionDependency,
    SessionsDependency,
    SettingsDependency,
)
from hpo_service.api.http.files import FILE_RESPONSES, ExportFormat, Strict, file_response
from hpo_service.api.http.if_match import IfMatch
from hpo_service.api.http.scopes import needs
from hpo_service.auth.principals import Scope
from hpo_service.core.messages import IntentKind
from hpo_service.core.settings import Settings
from hpo_service.services.common.exported_values import ExportedValuesDocument
from hpo_service.services.common.idempotency import Repetition
from hpo_service.services.studies import best as results
from hpo_service.services.studies import commands as steering
from hpo_service.services.studies import creation
from hpo_service.services.studies import read as reading
from hpo_service.services.studies.schemas import BestDocument, CreatedStudyDocument, Page, StudyDocument, StudySummary
from hpo_service.services.studies.spec_schemas import CloneRequest, ExtendRequest, ValidationReport
from hpo_service.spec.study import NAME_PATTERN
from trainer.common.failpoints import Commit

router = APIRouter(prefix="/v1/studies")

StudyName = Annotated[str, Path(description="Name of the study.", pattern=NAME_PATTERN)]
IdempotencyKey = Annotated[
    str | None, Header(description="The same key with the same body is answered the same for 24 hours.", max_length=255)
]
PageSize = Annotated[int, Query(ge=1, le=500, description="How many at most.")]
PageToken = Annotated[str | None, Query(description="`next_page_token` of the part before.", max_length=32)]
_STUDIES: dict[str, Any] = {"tags": ["studies"]}


@router.post(
    "",
    operation_id="create_study",
    summary="Create a study",
    status_code=201,
    openapi_extra=body_of("StudySpec"),
    dependencies=[needs(Scope.STUDY_WRITE)],
    **_STUDIES,
)
def create_study(
    document: JsonObject,
    sessions: SessionsDependency,
    project: ProjectDependency,
    settings: SettingsDependency,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> CreatedStudyDocument:
    """Everything is checked before the study exists: spec, space, files, workers. All problems come in one answer."""
    repetition = Repetition(project, idempotency_key, "create", document)
    return _create(sessions, project, settings, repetition, response, document)


@router.get(
    "",
    operation_id="list_studies",
    summary="List studies, the newest first",
    dependencies=[needs(Scope.STUDY_READ)],
    **_STUDIES,
)
def list_studies(
    session: SessionDependency, project: ProjectDependency, page_size: PageSize = 50, page_token: PageToken = None
) -> Page[StudySummary]:
    """A page of studies."""
    return reading.list_studies(session, project, page_size=page_size, page_token=page_token)


@router.get(
    f"/{NAME}", operation_id="get_study", summary="Show a study", dependencies=[needs(Scope.STUDY_READ)], **_STUDIES
)
def get_study(
    name: StudyName, session: SessionDependency, project: ProjectDependency, response: Response
) -> StudyDocument:
    """The study with its best trial, its cost and its spec."""
    return _tagged(reading.show_study(session, project, name), response)


@router.patch(
    f"/{NAME}",
    operation_id="extend_study",
    summary="Extend budget or ranges",
    status_code=202,
    openapi_extra=body_of("ExtendRequest"),
    dependencies=[needs(Scope.STUDY_WRITE)],
    **_STUDIES,
)
def extend_study(
    name: StudyName,
    document: JsonObject,
    session: SessionDependency,
    project: ProjectDependency,
    response: Response,
    if_match: IfMatch = None,
) -> StudyDocument:
    """Caps may change and numeric ranges grow while the study runs; a new category needs a clone."""
    request = checked(ExtendRequest, document)
    study = steering.extend(session, project, name, space=request.space, budget=request.budget, if_match=if_match)
    return _tagged(study, response)


@router.delete(
    f"/{NAME}",
    operation_id="delete_study",
    summary="Delete an ended study",
    status_code=202,
    dependencies=[needs(Scope.STUDY_WRITE)],
    **_STUDIES,
)
def delete_study(
    name: StudyName, session: SessionDependency, project: ProjectDependency, if_match: IfMatch = None
) -> StudyDocument:
    """Its trials and snapshots are forgotten."""
    return steering.delete(session, project, name, if_match=if_match)


@router.post(
    "/{name}:clone",
    operation_id="clone_study",
    summary="Start a new study from this one's spec",
    status_code=201,
    openapi_extra=body_of("CloneRequest"),
    dependencies=[needs(Scope.STUDY_WRITE)],
    **_STUDIES,
)
def clone_study(
    name: StudyName,
    document: JsonObject,
    sessions: SessionsDependency,
    project: ProjectDependency,
    settings: SettingsDependency,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> CreatedStudyDocument:
    """`changes` are merged into the spec as it was posted."""
    request = checked(CloneRequest, document)
    repetition = Repetition(project, idempotency_key, f"clone {name}", document)
    with sessions.begin() as session:
        spec = creation.cloned_spec(session, project, name, request.name, request.changes)
    return _create(sessions, project, settings, repetition, response, spec)


def _add_steering(kind: IntentKind, summary: str, description: str) -> None:
    def endpoint(
        name: StudyName, session: SessionDependency, project: ProjectDependency, if_match: IfMatch = None
    ) -> StudyDocument:
        return steering.steer(session, project, name, kind, if_match=if_match)

    router.add_api_route(
        f"/{{name}}:{kind}",
        endpoint,
        methods=["POST"],
        operation_id=f"{kind}_study",
        summary=summary,
        description=description,
        status_code=202,
        dependencies=[needs(Scope.STUDY_WRITE)],
        **_STUDIES,
    )


_add_steering(IntentKind.PAUSE, "Pause a study", "Running slices stop at their next step boundary, with a snapshot.")
_add_steering(IntentKind.RESUME, "Resume a paused study", "It goes on from its snapshots.")
_add_steering(
    IntentKind.STOP,
    "Stop a study",
    "Running slices finish; the best so far is confirmed if the spec says so, and the study completes. While it is "
    "being confirmed, stop ends it with what is known.",
)
_add_steering(
    IntentKind.CANCEL, "Cancel a study", "Running slices stop at their next step boundary; the study is over."
)


@router.get(
    "/{name}/best",
    operation_id="get_best",
    summary="The best parameters so far",
    tags=["results"],
    dependencies=[needs(Scope.STUDY_READ)],
)
def get_best(name: StudyName, session: SessionDependency, project: ProjectDependency) -> BestDocument:
    """404 before the first rung."""
    return results.show_best(session, project, name)


@router.get(
    "/{name}/best/export",
    operation_id="export_best",
    summary="The best parameters as a file",
    tags=["results"],
    response_class=Response,
    responses=FILE_RESPONSES,
    dependencies=[needs(Scope.STUDY_READ)],
)
def export_best(
    name: StudyName,
    session: SessionDependency,
    project: ProjectDependency,
    format: ExportFormat = "yaml",
    strict: Strict = False,
) -> Response:
    """What the format has no key for is named in the header `X-Dropped`."""
    return file_response(results.export_best(session, project, name, format, strict=strict))


@router.get(
    "/{name}/best/values",
    operation_id="list_best_values",
    summary="The values of such a file, one by one",
    tags=["results"],
    dependencies=[needs(Scope.STUDY_READ)],
)
def list_best_values(
    name: StudyName,
    session: SessionDependency,
    project: ProjectDependency,
    format: ExportFormat = "yaml",
    strict: Strict = False,
) -> ExportedValuesDocument:
    """For those who merge them into a file that they own: each value says what it is about."""
    return results.best_values(session, project, name, format, strict=strict)


validation = APIRouter()


@validation.post(
    "/v1/studies:validate",
    operation_id="validate_study",
    summary="Check a study without creating it",
    openapi_extra=body_of("StudySpec"),
    dependencies=[needs(Scope.STUDY_WRITE)],
    **_STUDIES,
)
def validate_study(
    document: JsonObject, sessions: SessionsDependency, caller: PrincipalDependency, settings: SettingsDependency
) -> ValidationReport:
    """The expanded space, what the study would probably take, and warnings.

    The data are checked, unless they were; a newer check of the same key takes the place of an older one.
    """
    project = caller.project_id
    prepared = creation.prepare(sessions, document, settings.allowed_roots())
    with sessions.begin() as session:
        return creation.report(session, project, prepared, settings.usd_per_gpu_hour, caller.key_id)


def _create(
    sessions: sessionmaker[Session],
    project: int,
    settings: Settings,
    repetition: Repetition,
    response: Response,
    spec: dict[str, Any],
) -> CreatedStudyDocument:
    known = repetition.once(
        sessions,
        lambda: creation.prepare(sessions, spec, settings.allowed_roots()),
        lambda session, prepared: creation.create(session, project, prepared),
        status=201,
        commit=Commit.CREATE,
    )
    study = CreatedStudyDocument.model_validate(known)
    response.headers["Location"] = f"/v1/studies/{study.name}"
    _tagged(study, response)
    return study


def _tagged(study: StudyDocument, response: Response) -> StudyDocument:
    response.headers["ETag"] = study.etag
    return study
