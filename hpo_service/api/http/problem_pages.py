"""Problems as pages, for people whose browser asked for one."""

import json

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, JSONResponse, Response

from hpo_service.formatting.html import page, tag


def wants_page(headers: Headers) -> bool:
    """Whether a person looks: a browser that was sent somewhere, not a program with a key."""
    return "authorization" not in headers and "text/html" in headers.get("accept", "")


def readable(problem: JSONResponse, path: str, headers: Headers) -> Response:
    """The problem as a page where a person looks; below `/v1` problems are always documents."""
    return _page(problem) if not path.startswith("/v1/") and wants_page(headers) else problem


def _page(problem: JSONResponse) -> Response:
    """The same status and sentence as the problem document has, with a way on."""
    document = json.loads(bytes(problem.body))
    body = page(
        document["title"],
        tag("h1", document["title"]),
        tag("p", document["detail"][:1].upper(), document["detail"][1:]),
        tag("p", tag("a", "All studies", href="/")),
    )
    kept = {name: value for name, value in problem.headers.items() if name not in ("content-type", "content-length")}
    return HTMLResponse(body, problem.status_code, kept)
