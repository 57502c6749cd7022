"""A spec that is wrong in places, read as far as it can be: so that what else is wrong is found in the same look."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from pydantic import ValidationError

from hpo_service.core.errors import InvalidSpec
from hpo_service.core.problems import Problems
from hpo_service.spec.problems import problems_from
from hpo_service.spec.study import StudySpec

#: what stands in for what has to be there and is not; what is then found out about it is no news
_STAND_INS: dict[tuple[str, ...], Any] = {
    ("metadata",): {"name": "unnamed"},
    ("metadata", "name"): "unnamed",
    ("model",): {"path": "missing"},
    ("model", "path"): "missing",
    ("data",): {"train": "missing"},
    ("data", "train"): "missing",
}
_SECTIONS = ("metadata", "model", "data")


def read_spec(document: object, problems: Problems) -> StudySpec | None:
    """The spec, without what `problems` was told of; None if nothing more can be found out.

    Raises:
        InvalidSpec: the document is no mapping.
    """
    if not isinstance(document, Mapping):
        raise InvalidSpec(f"a study spec is a mapping of keys, not {type(document).__name__}.")
    try:
        return StudySpec.model_validate(document)
    except ValidationError as error:
        problems.add(*problems_from(error, document, StudySpec))
        kept = deepcopy(dict(document))
        for details in error.errors(include_url=False, include_context=False):
            _leave_out(kept, details["loc"])
    try:
        return StudySpec.model_validate(kept)
    except ValidationError:
        return None


def _leave_out(document: dict[str, Any], location: tuple[int | str, ...]) -> None:
    """Remove what is at the location, or the nearest thing around it that can go; put a stand-in where one is needed.

    pydantic names branches of unions as well, which the document does not have. Of a list all goes: what is left of it
    would have other places.
    """
    place: Any = document
    trail: list[str] = []
    for part in location:
        if not isinstance(place, dict) or part not in place:
            break
        trail.append(str(part))
        place = place[part]
    missing = (*trail, *map(str, location[len(trail) : len(trail) + 1]))
    target = missing if missing in _STAND_INS else tuple(trail)
    if not target:
        return
    holder = document
    for part in target[:-1]:
        holder = holder[part]
    if target in _STAND_INS:
        holder[target[-1]] = deepcopy(_STAND_INS[target])
    else:
        holder.pop(target[-1], None)
