"""Every error as an RFC 9457 document. Nothing of the request is repeated in it, so no secret can be."""

import logging
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from hpo_service.api.http.dashboard_paths import READ_ONLY, changes_something
from hpo_service.api.http.problem_pages import readable
from hpo_service.core.errors import (
    Conflict,
    Forbidden,
    HpoError,
    InvalidRequest,
    InvalidSpec,
    NotExpressible,
    NotFound,
    PreconditionFailed,
    PreconditionRequired,
    Problem,
    TooLarge,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)

log = logging.getLogger(__name__)

_Handler = Callable[[Request, Exception], JSONResponse]

MEDIA_TYPE = "application/problem+json"
_CODES = {404: "not_found", 405: "method_not_allowed"}


class FieldProblem(BaseModel):
    """One thing that is wrong."""

    pointer: str = Field(description="JSON pointer (RFC 6901) of the field; empty for the whole document.")
    detail: str = Field(description="What is wrong and what to do.")
    allowed: list[str] = Field(default_factory=list, description="What may stand there, where that can be listed.")


class ProblemDocument(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(description="`about:blank`; the kind of error is `code`.")
    title: str
    status: int
    code: str = Field(description="Stable name of the kind of error.")
    detail: str = Field(description="A sentence that names the value, the limit and the remedy.")
    errors: list[FieldProblem] = Field(default_factory=list)


_PLACEHOLDER = "4XX"
#: keeps FastAPI from adding its own validation error; `document_problems` takes it out again
RESPONSES: dict[int | str, dict[str, Any]] = {_PLACEHOLDER: {"description": "A problem"}}


def document_problems(operation: dict[str, Any], method: str) -> None:
    """Name every problem that an operation of the OpenAPI document can answer with; any other status is a mistake."""
    responses: dict[str, Any] = operation["responses"]
    responses.pop(_PLACEHOLDER, None)
    for error in _possible(operation, method):
        content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
        responses.setdefault(str(error.status), {"description": (error.__doc__ or "").strip(), "content": content})
    operation["responses"] = dict(sorted(responses.items()))


def _possible(operation: dict[str, Any], method: str) -> Iterator[type[HpoError]]:
    parameters = operation.get("parameters", [])
    names = {parameter["name"].lower() for parameter in parameters}
    has_body = "requestBody" in operation
    # What is only looked at (200) exists in its body alone; what is made of a body may name other things.
    is_about_something = any(parameter["in"] == "path" for parameter in parameters) or (
        has_body and "200" not in operation["responses"]
    )
    yield Unavailable
    if operation.get("security"):
        yield from (Unauthenticated, Forbidden, TooManyRequests)
    if parameters or has_body:
        yield InvalidRequest
    if is_about_something:
        yield NotFound
    if is_about_something and method != "get":
        yield Conflict
    if "if-match" in names:
        yield PreconditionFailed
    if "if-match" in names and method == "put":
        yield PreconditionRequired
    if has_body:
        yield from (TooLarge, InvalidSpec)
    if "strict" in names:
        yield NotExpressible


def problem_response(error: HpoError) -> JSONResponse:
    """The document of an error of ours."""
    extra = {} if error.retry_after_seconds is None else {"Retry-After": str(error.retry_after_seconds)}
    if error.status == 401:
        extra["WWW-Authenticate"] = "Bearer"
    return _response(error.status, error.code, error.detail, [problem.as_json() for problem in error.problems], extra)


def unavailable(error: Exception) -> Unavailable:
    """What callers are told when the database does not answer; the reason goes to the log only."""
    log.warning("the database does not answer: %s", str(error).splitlines()[0] if str(error) else type(error).__name__)
    return Unavailable("The database does not answer; nothing was changed. Try again.")


def install(app: FastAPI) -> None:
    """Make the application answer every exception with a problem document, and outside of `/v1` people with a page."""
    handlers: dict[type[Exception], _Handler] = {
        HpoError: _ours,
        OperationalError: _database,
        PoolTimeoutError: _database,
        RequestValidationError: _validation,
        HTTPException: _http,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, _negotiated(handler))


def _negotiated(handler: _Handler) -> Callable[[Request, Exception], Response]:
    def answer(request: Request, error: Exception) -> Response:
        return readable(handler(request, error), request.url.path, request.headers)

    return answer


def _ours(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HpoError)
    if error.status >= 500:
        log.error("%s: %s", error.code, error.detail)
    return problem_response(error)


def _database(_request: Request, error: Exception) -> JSONResponse:
    return problem_response(unavailable(error))


def _validation(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = [
        Problem(
            pointer="".join(f"/{part}" for part in details["loc"][1:]),
            detail=f"{details['loc'][0]} {'.'.join(map(str, details['loc'][1:]))}: {details['msg']}.",
        )
        for details in error.errors()
    ]
    detail = problems[0].detail if problems else "The request cannot be read."
    return problem_response(InvalidRequest(detail, problems=problems))


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    sentences = {
        404: "There is nothing at this address; the addresses are listed at /docs.",
        405: f"{request.method} is not possible here.",
    }
    detail = sentences.get(error.status_code) or str(error.detail)
    code = _CODES.get(error.status_code, "invalid_request" if error.status_code < 500 else "internal")
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_allowed(request)))
        if changes_something(request.method, request.url.path):
            # optuna-dashboard's page shows `reason` and nothing else of an answer.
            return _response(405, code, READ_ONLY, [], headers, reason=READ_ONLY)
    return _response(error.status_code, code, detail, [], headers)


def _allowed(request: Request) -> set[str]:
    """Methods of every route at this address; each route by itself names its own only."""
    matching = (route for route in _routes(request.app.routes) if route.matches(request.scope)[0] is not Match.NONE)
    return {method for route in matching for method in route.methods or ()}


def _routes(found: Iterable[Any]) -> Iterator[Any]:
    """Those of routers within routers too."""
    for route in found:
        inner = getattr(getattr(route, "original_router", None), "routes", None)
        if inner is None:
            yield route
        else:
            yield from _routes(inner)


def unexpected_response() -> JSONResponse:
    """What callers are told of an error that is ours; the reason goes to the log only."""
    return _response(
        500, "internal", "Something went wrong inside the service; its log says what, under X-Request-ID.", [], {}
    )


def _response(
    status: int, code: str, detail: str, errors: list[dict[str, Any]], headers: dict[str, str], **more: str
) -> JSONResponse:
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        **more,
    }
    if errors:
        body["errors"] = errors
    return JSONResponse(body, status, headers, media_type=MEDIA_TYPE)
