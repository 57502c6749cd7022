"""optuna-dashboard under our port: behind our authentication, GET and HEAD only, from a process that cannot write."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session, sessionmaker
from starlette.background import BackgroundTask
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse

from hpo_service.api.http.dashboard_paths import HIDDEN, STUDIES, read_path
from hpo_service.api.http.dependencies import ProjectDependency, SessionsDependency
from hpo_service.api.http.problems import problem_response
from hpo_service.api.http.scopes import needs
from hpo_service.auth.principals import Scope
from hpo_service.core.errors import NotFound, Unavailable
from hpo_service.core.settings import Settings
from hpo_service.dashboard.process import DashboardProcess, dashboard_url
from hpo_service.formatting.html import page, tag
from hpo_service.services.access.dashboard_access import optuna_study_ids
from hpo_service.services.insights.importances import dashboard_importances

router = APIRouter(include_in_schema=False, dependencies=[needs(Scope.STUDY_READ)])

_METHODS = ["GET", "HEAD"]
_PASSED_ON = ("accept", "accept-encoding", "if-none-match", "if-modified-since", "range", "user-agent")
_PASSED_BACK = (
    "content-type",
    "content-disposition",
    "content-length",
    "content-encoding",
    "content-security-policy",
    "etag",
    "last-modified",
    "location",
    "accept-ranges",
    "content-range",
)
_READ_SECONDS = 120.0
_WAIT_REFRESH_SECONDS = 2
_NOTHING = NotFound("There is nothing at this address.")


@asynccontextmanager
async def running_dashboard(settings: Settings) -> AsyncIterator[dict[str, Any]]:
    """The child process and a client for it while the block runs; nothing where no database URL is set."""
    url = dashboard_url(settings)
    if url is None:
        yield {}
        return
    process = DashboardProcess(url)
    process.start()
    transport = httpx.AsyncHTTPTransport(uds=process.socket_path)
    timeout = httpx.Timeout(5.0, read=_READ_SECONDS)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://dashboard", timeout=timeout) as client:
            yield {"dashboard": client, "dashboard_process": process}
    finally:
        process.stop()


@router.api_route("/dashboard", methods=_METHODS)
@router.api_route("/dashboard/{rest:path}", methods=_METHODS)
@router.api_route("/api/{rest:path}", methods=_METHODS)
@router.api_route("/static/{rest:path}", methods=_METHODS)
@router.api_route("/csv/{rest:path}", methods=_METHODS)
@router.api_route("/favicon.ico", methods=_METHODS)
async def proxy(request: Request, sessions: SessionsDependency, project: ProjectDependency) -> Response:
    """Hand a read on to optuna-dashboard, without credentials, and hand back what concerns the caller's project."""
    asked = read_path(request.url.path)
    if asked is None:
        raise _NOTHING
    mine = await run_in_threadpool(_own_studies, sessions, project) if asked.tells_of_studies else frozenset()
    if asked.study_id is not None and asked.study_id not in mine:
        raise _NOTHING
    if asked.is_importances and asked.study_id is not None:
        # One answer to one question: optuna-dashboard's own looks at complete trials only.
        found = await run_in_threadpool(_importances, sessions, project, asked.study_id)
        return JSONResponse({"param_importances": found})
    client: httpx.AsyncClient | None = getattr(request.state, "dashboard", None)
    if client is None:
        raise NotFound("The dashboard is not part of this service.")
    try:
        if asked.path == STUDIES:
            return _listed(await client.request(request.method, STUDIES), mine)
        if asked.is_page and request.method == "GET":
            return _page(request, await client.get(asked.path))
        return await _streamed(request, client)
    except httpx.TransportError:
        return _starting(request)


async def _streamed(request: Request, client: httpx.AsyncClient) -> Response:
    url = httpx.URL(path=request.url.path, query=request.url.query.encode())
    headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
    answer = await client.send(client.build_request(request.method, url, headers=headers), stream=True)
    return StreamingResponse(
        answer.aiter_raw(),
        answer.status_code,
        _answer_headers(request, answer),
        background=BackgroundTask(answer.aclose),
    )


def _own_studies(sessions: sessionmaker[Session], project: int) -> frozenset[int]:
    with sessions() as session:
        return optuna_study_ids(session, project)


def _importances(sessions: sessionmaker[Session], project: int, study_id: int) -> list[list[dict[str, Any]]]:
    with sessions() as session:
        return dashboard_importances(session, project, study_id)


def _listed(answer: httpx.Response, mine: frozenset[int]) -> Response:
    """The list of studies without those of other projects, and such that are not ours at all."""
    if answer.status_code != 200 or not answer.content:
        return Response(status_code=answer.status_code, media_type="application/json")
    studies = [study for study in answer.json()["study_summaries"] if study["study_id"] in mine]
    return JSONResponse({"study_summaries": studies})


def _page(request: Request, answer: httpx.Response) -> Response:
    """Its document without the buttons that cannot work here."""
    headers = _answer_headers(request, answer)
    for name in ("content-length", "content-encoding", "etag", "last-modified", "accept-ranges"):
        headers.pop(name, None)
    document = answer.text.replace("</head>", f"<style>{HIDDEN}</style></head>", 1)
    return Response(document, answer.status_code, headers)


def _answer_headers(request: Request, answer: httpx.Response) -> dict[str, str]:
    headers = {name: answer.headers[name] for name in _PASSED_BACK if name in answer.headers}
    if request.url.path.startswith("/static/") and answer.status_code < 400:
        headers["Cache-Control"] = "private, max-age=3600"
    if policy := headers.get("content-security-policy"):
        headers["content-security-policy"] = f"{policy};base-uri 'none';form-action 'none';frame-ancestors 'none'"
    return headers


def _starting(request: Request) -> Response:
    if "text/html" in request.headers.get("accept", ""):
        body = page(
            "Dashboard",
            tag("h1", "The dashboard is starting"),
            tag("p", "This page looks again by itself."),
            refresh_seconds=_WAIT_REFRESH_SECONDS,
        )
        return HTMLResponse(body, 503, {"Retry-After": str(_WAIT_REFRESH_SECONDS)})
    return problem_response(Unavailable("The dashboard is starting; try again in a moment."))
