"""`/docs`: every address on one page, rendered here, so that it needs no script and no network."""

from typing import Any

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import HTMLResponse

from hpo_service.api.markup import Markup, join, page, tag

router = APIRouter(include_in_schema=False)

_SCHEME = {"type": "http", "scheme": "bearer", "description": "An API key: `hpo_key_<id>_<secret>`."}


@router.get("/docs")
def show_docs(request: Request) -> HTMLResponse:
    """The page."""
    document = request.app.openapi()
    by_tag: dict[str, list[Markup]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            name = operation.get("tags", ["other"])[0]
            by_tag.setdefault(name, []).append(_operation(method.upper(), path, operation))
    sections = [
        join(tag("h2", entry["name"].capitalize()), tag("p", entry["description"]), *by_tag.get(entry["name"], []))
        for entry in document["tags"]
    ]
    links = tag("nav", tag("a", "Studies", href="/"), tag("a", "OpenAPI document", href="/openapi.json"))
    return HTMLResponse(
        page("API", tag("h1", document["info"]["title"]), tag("p", document["info"]["description"]), links, *sections)
    )


def describe_security(app: FastAPI) -> None:
    """Put the API key and the problem document into the OpenAPI document."""
    original = app.openapi

    def described() -> dict[str, Any]:
        document = original()
        components = document.setdefault("components", {})
        components["securitySchemes"] = {"apiKey": _SCHEME}
        document["security"] = [{"apiKey": []}]
        for path in ("/healthz", "/readyz"):
            document["paths"][path]["get"]["security"] = []
        return document

    app.openapi = described  # type: ignore[method-assign]


def _operation(method: str, path: str, operation: dict[str, Any]) -> Markup:
    rows = [
        tag(
            "tr",
            tag("td", tag("code", parameter["name"])),
            tag("td", f"in {parameter['in']}"),
            tag("td", parameter.get("description", "")),
        )
        for parameter in operation.get("parameters", [])
    ]
    return join(
        tag("h3", tag("code", f"{method} {path}"), " ", operation.get("summary", "")),
        tag("p", operation.get("description", "")),
        tag("table", *rows) if rows else None,
    )
