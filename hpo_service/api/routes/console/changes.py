"""`/console/changes`: a stream that tells a page when to look again. What there is to see stays in the pages."""

import asyncio
import time
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.api.http.dependencies import ProjectDependency, SessionsDependency
from hpo_service.api.http.scopes import needs
from hpo_service.api.middleware.stream_limits import CountedStream
from hpo_service.auth.principals import Scope
from hpo_service.services.views.start_page import read_change_mark

router = APIRouter(dependencies=[needs(Scope.STUDY_READ)])

POLL_SECONDS = 0.5
ALIVE_SECONDS = 15.0
#: then the page asks again, so that a session or key that has ended meanwhile is noticed
LASTS_SECONDS = 300.0


@router.get("/console/changes", response_class=EventSourceResponse)
async def follow_changes(
    request: Request, sessions: SessionsDependency, project: ProjectDependency, _: CountedStream
) -> AsyncIterator[ServerSentEvent]:
    """`hello`, then `change` whenever anything of the project has changed; the stream ends after five minutes."""
    begun = spoke = time.monotonic()
    known: tuple[object, ...] | None = None
    while not request.app.state.stopping.is_set():
        try:
            mark = await run_in_threadpool(_read, sessions, project)
        except (OperationalError, PoolTimeoutError):
            return
        kind = "hello" if known is None else "change" if mark != known else None
        known = mark
        now = time.monotonic()
        if kind is None and now - spoke >= ALIVE_SECONDS:
            kind = "alive"
        if kind is not None:
            spoke = now
            yield ServerSentEvent(event=kind, data={})
        if now - begun >= LASTS_SECONDS:
            yield ServerSentEvent(event="again", data={})
            return
        await asyncio.sleep(POLL_SECONDS)


def _read(sessions: sessionmaker[Session], project: int) -> tuple[object, ...]:
    with sessions() as session:
        return read_change_mark(session, project)
