"""Request bodies: JSON that PostgreSQL can keep, checked against a model with pointers for everything that is wrong."""

import json
import math
import re
from typing import Annotated, Any, NoReturn, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError

from hpo_service.api.http.audit_trail import note_body
from hpo_service.core.errors import InvalidRequest, InvalidSpec, TooLarge
from hpo_service.spec import problems_from

Model = TypeVar("Model", bound=BaseModel)

_MAX_DEPTH = 16
#: what PostgreSQL cannot keep, and what a terminal would obey
_UNUSABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


async def _json_object(request: Request) -> dict[str, Any]:
    raw = await _read(request)
    try:
        document = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not UTF-8 (byte {error.start}).") from None
    except json.JSONDecodeError as error:
        raise InvalidRequest(
            f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except (ValueError, RecursionError):
        raise InvalidRequest("the body is not JSON that can be read.") from None
    if not isinstance(document, dict):
        raise InvalidRequest(f"the body must be a JSON object, this is a {type(document).__name__}.")
    _require_storable(document, 0)
    note_body(request.scope, raw, document)
    return document


async def _read(request: Request) -> bytes:
    limit: int = request.app.state.settings.max_body_bytes
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > limit:
            raise TooLarge(f"the body is larger than {limit} bytes; a study names its data, it does not hold it.")
    return bytes(raw)


JsonObject = Annotated[dict[str, Any], Depends(_json_object)]


def checked(model: type[Model], document: dict[str, Any]) -> Model:
    """The document as `model`. Raises InvalidSpec with a problem for everything that is wrong."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        problems = problems_from(error, document, model)
        raise InvalidSpec(problems[0].detail, problems=problems) from None


def body_of(schema: str) -> dict[str, Any]:
    """`openapi_extra` of an endpoint that reads its body as JsonObject."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"requestBody": {"required": True, "content": content}}


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidRequest(f"the body holds {name}; every number must be finite.")


def _require_storable(value: object, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise InvalidRequest(f"the body is nested deeper than {_MAX_DEPTH} levels.")
    if isinstance(value, dict):
        for key, item in value.items():
            _require_storable(key, depth)
            _require_storable(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _require_storable(item, depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidRequest("the body holds a number that is too large.")
    elif isinstance(value, str) and _UNUSABLE.search(value):
        raise InvalidRequest("the body holds text with a control character or half a surrogate pair.")
