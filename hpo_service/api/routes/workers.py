"""`/v1/workers`: where work runs, and taking workers out of it."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from hpo_service.api.http.dependencies import ProjectDependency, SessionDependency
from hpo_service.api.http.scopes import needs
from hpo_service.api.routes.studies import PageSize, PageToken
from hpo_service.auth.principals import Scope
from hpo_service.core.messages import IntentKind
from hpo_service.services.execution import workers
from hpo_service.services.execution.schemas import WorkerDocument
from hpo_service.services.studies.schemas import Page

router = APIRouter(prefix="/v1/workers", tags=["workers"])

WorkerName = Annotated[str, Path(description="Name of the worker.", pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]
Reason = Annotated[
    str, Query(description="For those who see it later.", max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")
]


@router.get(
    "", operation_id="list_workers", summary="List workers, the newest first", dependencies=[needs(Scope.STUDY_READ)]
)
def list_workers(
    session: SessionDependency,
    project: ProjectDependency,
    page_size: PageSize = 100,
    page_token: PageToken = None,
    gone: Annotated[bool, Query(description="With those whose process has ended.")] = False,
) -> Page[WorkerDocument]:
    """Those that are there, and those whose places are quarantined."""
    return workers.list_workers(session, project, page_size=page_size, page_token=page_token, gone=gone)


def _add_action(kind: IntentKind, summary: str, description: str) -> None:
    verb = kind.removeprefix("worker_")

    def endpoint(
        name: WorkerName, session: SessionDependency, project: ProjectDependency, reason: Reason = ""
    ) -> WorkerDocument:
        return workers.ask_worker(session, project, name, kind, reason)

    router.add_api_route(
        f"/{{name}}:{verb}",
        endpoint,
        methods=["POST"],
        operation_id=f"{verb}_worker",
        summary=summary,
        description=description,
        status_code=202,
        dependencies=[needs(Scope.ADMIN)],
    )


_add_action(
    IntentKind.WORKER_DRAIN,
    "Drain a worker",
    "It gets nothing more, its slices stop at their next step boundary and go on elsewhere, and a fresh worker takes "
    "its place.",
)
_add_action(
    IntentKind.WORKER_QUARANTINE,
    "Quarantine a worker",
    "As draining, but no worker is started at its places until it is released.",
)
_add_action(IntentKind.WORKER_RELEASE, "Release a quarantined worker", "Its places get workers again.")
