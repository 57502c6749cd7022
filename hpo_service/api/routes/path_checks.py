"""`/v1/path-checks`: whether workers see the models, the data and the snapshots that they need."""

from typing import Annotated

from fastapi import APIRouter, Path

from hpo_service.api.http.dependencies import (
    ProjectDependency,
    SessionDependency,
    SessionsDependency,
    SettingsDependency,
    StoreDependency,
)
from hpo_service.api.http.scopes import needs
from hpo_service.api.routes.studies import IdempotencyKey
from hpo_service.auth.principals import Scope
from hpo_service.services.common.idempotency import Repetition
from hpo_service.services.data import path_checks
from hpo_service.services.data.path_checks import PathCheckDocument, PathChecksDocument

router = APIRouter(prefix="/v1/path-checks", tags=["workers"])

JobId = Annotated[int, Path(description="`job` of an answer about a path check.", ge=1, lt=2**63)]


@router.post(
    "",
    operation_id="check_paths",
    summary="Ask every worker what it sees",
    status_code=202,
    dependencies=[needs(Scope.STUDY_WRITE)],
)
def check_paths(
    session: SessionDependency,
    project: ProjectDependency,
    settings: SettingsDependency,
    idempotency_key: IdempotencyKey = None,
) -> PathChecksDocument:
    """Models and data of live studies, the folders below which such may be named, and the snapshot store."""
    repetition = Repetition(project, idempotency_key, "check paths", {})
    if (known := repetition.answer(session)) is not None:
        return PathChecksDocument.model_validate(known)
    asked = path_checks.ask(session, project, settings.snapshots_location(), settings.allowed_roots())
    repetition.remember(session, 202, asked.model_dump(mode="json"))
    return asked


@router.get(
    "/{job}", operation_id="get_path_check", summary="Show what a worker sees", dependencies=[needs(Scope.STUDY_READ)]
)
def get_path_check(
    job: JobId, sessions: SessionsDependency, project: ProjectDependency, store: StoreDependency
) -> PathCheckDocument:
    """Pending until the worker has answered."""
    with sessions.begin() as session:
        check = path_checks.show(session, project, job)
    return path_checks.judged(check, store)
