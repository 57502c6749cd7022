"""Turn pydantic's complaints into problems with a JSON pointer, what is allowed and what was probably meant."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hpo_service.core.errors import Problem
from hpo_service.core.spelling import did_you_mean, unknown_key
from hpo_service.spec.foreign_names import foreign_name
from trainer.spec import Parameters

_SHOWN = 80
#: a document can be wrong in more places than anybody reads
_MOST_PROBLEMS = 100
_PREFIX = re.compile(r"^(Value error, |Input |(String|Value|Dictionary|List|Tuple|Datetime) (?=should|must))")
_QUOTED = re.compile(r"'([^']*)'")


def problems_from(error: ValidationError, document: object, model: type[BaseModel]) -> list[Problem]:
    """One problem for each of the first 100 complaints of `model` about `document`, in the document's order."""
    return [_problem(details, document, model) for details in error.errors(include_url=False)[:_MOST_PROBLEMS]]


def _problem(details: ErrorDetails, document: object, model: type[BaseModel]) -> Problem:
    location = tuple(_existing(details["loc"], document))
    kind = details["type"]
    if kind == "extra_forbidden" and location:
        return _unknown(location, model)
    if kind == "missing":
        return Problem(detail=f"{details['loc'][-1]} is required.", pointer=pointer(details["loc"]))
    if kind == "model_type":
        known = _keys_at(model, location)
        written = _shown(details["input"])
        detail = f"{_name(location)}{written}: it should be a mapping of keys, such as {{{known[0]}: …}}."
        return Problem(detail=detail, pointer=pointer(location), allowed=known)
    allowed: tuple[str, ...] = ()
    hint = ""
    if kind in ("literal_error", "enum"):
        allowed = tuple(_QUOTED.findall(str(details.get("ctx", {}).get("expected", ""))))
        hint = did_you_mean(str(details["input"])[:_SHOWN], allowed)
    message = _PREFIX.sub("", details["msg"]).replace("dictionary", "mapping of keys")
    written = _shown(details["input"])
    sentence = message if kind == "value_error" else f"{_name(location)}{written}: it {message}"
    return Problem(detail=f"{sentence.rstrip('.')}.{hint}", pointer=pointer(location), allowed=allowed)


def _unknown(location: tuple[int | str, ...], model: type[BaseModel]) -> Problem:
    """A key that does not exist here: another tool's, one of another section, or a slip of the pen."""
    name, known = str(location[-1])[:_SHOWN], _keys_at(model, location[:-1])
    place = "".join(f"{part}." for part in location[:-1])
    detail = foreign_name(name)
    if detail is None and (elsewhere := [path for path in _paths(model) if path.rpartition(".")[2] == name]):
        detail = f"{name!r} does not belong {f'to {place[:-1]}' if place else 'here'}; write {' or '.join(elsewhere)}."
    return Problem(detail=detail or unknown_key(name, known), pointer=pointer(location), allowed=known)


def _paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key that a document has a place for, and every parameter of a space."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        yield path
        inner = _model_in(field.annotation)
        if inner is not None:
            yield from _paths(inner, f"{path}.")
    if not prefix and "space" in model.model_fields:
        yield from (f"space.{name}" for name in Parameters.model_fields)


def pointer(location: Sequence[int | str]) -> str:
    """The JSON pointer (RFC 6901) of a location."""
    return "".join("/" + str(part)[:_SHOWN].replace("~", "~0").replace("/", "~1") for part in location)


def _existing(location: tuple[int | str, ...], document: object) -> Iterator[int | str]:
    """The parts of a location that the document has; pydantic also names branches of unions."""
    for part in location:
        children = dict(enumerate(document)) if isinstance(document, list) else document
        if isinstance(children, Mapping) and part in children:
            document = children[part]
            yield part


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[str, ...]:
    current = model
    for part in location:
        fields = {(field.alias or name): field.annotation for name, field in current.model_fields.items()}
        current = _model_in(fields.get(str(part))) or current
    return tuple(field.alias or name for name, field in current.model_fields.items())


def _model_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _name(location: Sequence[int | str]) -> str:
    return ".".join(map(str, location)) or "the document"


def _shown(value: object) -> str:
    if isinstance(value, str | int | float) or value is None:
        text = repr(value)
        return f" is {text if len(text) <= _SHOWN else text[:_SHOWN] + '…'}"
    return ""
