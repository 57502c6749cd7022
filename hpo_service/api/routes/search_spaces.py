"""`/v1/search-spaces` and `/v1/schemas`: what a study can be made of."""

from typing import Annotated, Any

from fastapi import APIRouter, Path

from hpo_service.api.http.scopes import needs
from hpo_service.api.routes.studies import PageSize, PageToken
from hpo_service.auth.principals import Scope
from hpo_service.core.errors import InvalidSpec, NotFound
from hpo_service.services.studies.read import read_token
from hpo_service.services.studies.schemas import Page
from hpo_service.services.studies.spec_schemas import KnownPointDocument, SearchSpaceDocument
from hpo_service.services.trials.optuna_trials import finite
from hpo_service.spec import StudySpec
from hpo_service.spec.presets import PRESETS, load_preset

router = APIRouter(tags=["search spaces"], dependencies=[needs(Scope.STUDY_READ)])


@router.get("/v1/search-spaces", operation_id="list_search_spaces", summary="List the search spaces that ship with us")
def list_search_spaces(page_size: PageSize = 100, page_token: PageToken = None) -> Page[SearchSpaceDocument]:
    """A page of them."""
    begin = 0 if page_token is None else read_token(page_token)
    end = begin + page_size
    return Page[SearchSpaceDocument](
        items=[_document(name) for name in PRESETS[begin:end]],
        next_page_token=str(end) if end < len(PRESETS) else None,
    )


@router.get("/v1/search-spaces/{name}", operation_id="get_search_space", summary="Show a search space")
def get_search_space(
    name: Annotated[str, Path(description="Name of the preset.", max_length=64)],
) -> SearchSpaceDocument:
    """With its rationale and sources, as comments of the YAML."""
    try:
        return _document(name)
    except InvalidSpec as error:
        raise NotFound(error.detail) from None


@router.get(
    "/v1/schemas/study-spec.json",
    operation_id="get_study_spec_schema",
    summary="JSON schema of a study",
    response_model=None,
)
def get_study_spec_schema() -> dict[str, Any]:
    """For editors: `# yaml-language-server: $schema=…`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **StudySpec.model_json_schema()}


def _document(name: str) -> SearchSpaceDocument:
    preset = load_preset(name)
    return SearchSpaceDocument(
        name=preset.name,
        title=preset.title,
        baseline=preset.baseline,
        portfolio=[
            KnownPointDocument(
                values=known.values,
                source=known.source,
                from_parameters=known.from_parameters,
                to_parameters=finite(known.to_parameters),
            )
            for known in preset.portfolio
        ],
        document=preset.document,
        source=preset.source,
    )
