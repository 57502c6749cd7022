"""`/v1/studies/{name}/events`: server-sent events, resumable. The one asynchronous endpoint of ours."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.api.http.dependencies import (
    PrincipalDependency,
    ProjectDependency,
    SessionDependency,
    SessionsDependency,
)
from hpo_service.api.http.scopes import needs
from hpo_service.api.middleware.stream_limits import CountedStream
from hpo_service.api.routes.studies import PageToken, StudyName
from hpo_service.auth.principals import Principal, Scope, is_live
from hpo_service.core.errors import InvalidRequest
from hpo_service.services.execution.events import Batch, find_study_id, list_service_events, next_events
from hpo_service.services.execution.schemas import EventDocument
from hpo_service.services.studies.schemas import Page

router = APIRouter(tags=["events"], dependencies=[needs(Scope.STUDY_READ)])

POLL_SECONDS = 0.3


def _study_id(name: StudyName, session: SessionDependency, project: ProjectDependency) -> int:
    return find_study_id(session, project, name)


def _after(
    last_event_id: Annotated[str | None, Header(description="Id of the last event that was seen.")] = None,
    after: Annotated[int, Query(ge=0, lt=2**63, description="The same, where headers cannot be set.")] = 0,
) -> int:
    if last_event_id is None:
        return after
    if not last_event_id.isascii() or not last_event_id.isdigit() or len(last_event_id) > 18:
        raise InvalidRequest("Last-Event-ID is not the id of an event; ids are whole numbers.")
    return int(last_event_id)


@router.get(
    "/v1/studies/{name}/events",
    operation_id="stream_events",
    summary="Follow a study",
    response_class=EventSourceResponse,
)
async def stream_events(
    request: Request,
    study_id: Annotated[int, Depends(_study_id)],
    after: Annotated[int, Depends(_after)],
    sessions: SessionsDependency,
    caller: PrincipalDependency,
    _: CountedStream,
) -> AsyncIterator[ServerSentEvent]:
    """Events in the order in which they happened. The stream ends after the study, with the service or with the key."""
    while not request.app.state.stopping.is_set():
        try:
            batch = await run_in_threadpool(_read, sessions, caller, study_id, after)
        except (OperationalError, PoolTimeoutError):
            return
        if batch is None:
            return
        for event in batch.events:
            after = event.id
            yield ServerSentEvent(id=str(event.id), event=event.kind, data=event)
        if batch.last:
            return
        if not batch.full:
            await asyncio.sleep(POLL_SECONDS)


@router.get("/v1/events", operation_id="list_service_events", summary="What happened to the service")
def get_service_events(
    session: SessionDependency,
    project: ProjectDependency,
    page_size: Annotated[int, Query(ge=1, le=1000, description="How many at most.")] = 200,
    page_token: PageToken = None,
) -> Page[EventDocument]:
    """Losses of workers, quarantines, take-overs, in order. Callers of other projects than the first see none."""
    return list_service_events(session, project, page_size=page_size, page_token=page_token)


def _read(sessions: sessionmaker[Session], caller: Principal, study_id: int, after: int) -> Batch | None:
    with sessions() as session:
        if not is_live(session, caller):
            return None
        return next_events(session, caller.project_id, study_id, after)
