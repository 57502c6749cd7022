"""`/docs`: every address on one page, rendered here, so that it needs no script and no network."""

from typing import Any

from fastapi import APIRouter, FastAPI, Request
from pydantic.json_schema import models_json_schema
from starlette.responses import HTMLResponse, JSONResponse

from hpo_service.api.http.problems import ProblemDocument, document_problems
from hpo_service.api.http.scopes import needs
from hpo_service.auth.principals import Scope
from hpo_service.formatting.html import Markup, join, page, tag
from hpo_service.services.access.key_schemas import CreateKeyRequest, CreateProjectRequest, RotateKeyRequest
from hpo_service.services.access.quota_schemas import SetQuotaRequest
from hpo_service.services.deliveries.schemas import DeliverRequest
from hpo_service.services.promotions.schemas import PromoteRequest, RollbackRequest
from hpo_service.services.studies.spec_schemas import CloneRequest, ExtendRequest
from hpo_service.services.studies.suggestion import SuggestRequest
from hpo_service.services.trials.schemas import EnqueueRequest
from hpo_service.spec import StudySpec

router = APIRouter(include_in_schema=False, dependencies=[needs(Scope.STUDY_READ)])


@router.get("/openapi.json")
def get_openapi(request: Request) -> JSONResponse:
    """The OpenAPI document, for those who may read studies."""
    return JSONResponse(request.app.openapi())


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


def complete_openapi(app: FastAPI) -> None:
    """Put the bodies that we read ourselves and the problem document into the OpenAPI document."""
    original = app.openapi

    def completed() -> dict[str, Any]:
        document = original()
        components = document.setdefault("components", {})
        components.setdefault("schemas", {}).update(_schemas())
        for operations in document["paths"].values():
            for method, operation in operations.items():
                document_problems(operation, method)
        return document

    app.openapi = completed  # type: ignore[method-assign]


def _schemas() -> dict[str, Any]:
    _, schemas = models_json_schema(
        [
            (StudySpec, "validation"),
            (CloneRequest, "validation"),
            (EnqueueRequest, "validation"),
            (ExtendRequest, "validation"),
            (SuggestRequest, "validation"),
            (DeliverRequest, "validation"),
            (PromoteRequest, "validation"),
            (RollbackRequest, "validation"),
            (CreateKeyRequest, "validation"),
            (RotateKeyRequest, "validation"),
            (CreateProjectRequest, "validation"),
            (SetQuotaRequest, "validation"),
            (ProblemDocument, "validation"),
        ],
        ref_template="#/components/schemas/{model}",
    )
    definitions: dict[str, Any] = schemas["$defs"]
    return definitions


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
    scope = " ".join(scope for way in operation.get("security", []) for scopes in way.values() for scope in scopes)
    return join(
        tag("h3", tag("code", f"{method} {path}"), " ", operation.get("summary", "")),
        tag("p", operation.get("description", "")),
        tag("p", "Scope ", tag("code", scope), class_="soft") if scope else None,
        tag("table", *rows) if rows else None,
    )
