"""Known points of a space: whether they lie in it, what completes them, which ones a preset knows."""

from collections.abc import Mapping, Sequence
from typing import Any

from hpo_service.core.errors import InvalidSpec
from hpo_service.spec.presets import Preset
from hpo_service.spec.space import SearchSpace
from trainer.spec import Parameters


def fits(space: SearchSpace, point: Mapping[str, Any]) -> bool:
    """Whether a point in real values, perhaps a partial one, lies in the space."""
    try:
        space.point(point)
    except InvalidSpec:
        return False
    return True


def is_complete(space: SearchSpace, point: Mapping[str, Any]) -> bool:
    """Whether a point in real values leaves nothing to be sampled."""
    try:
        space.assignment(space.point(point))
    except InvalidSpec:
        return False
    return True


def completed(space: SearchSpace, point: Mapping[str, Any], published: Mapping[str, Any]) -> dict[str, Any]:
    """The point with published values, else the trainer's defaults, for what it leaves out, where they fit."""
    known = {**Parameters().model_dump(), **published}
    found = dict(point)
    for name in space.dimensions:
        if name in known and name not in found and fits(space, {**found, name: known[name]}):
            found[name] = known[name]
    return found


def portfolio(
    space: SearchSpace,
    preset: Preset,
    model_parameters: int | None,
    *,
    besides: Sequence[Mapping[str, Any]],
    room: int,
) -> list[dict[str, Any]]:
    """At most `room` known-good points of a preset that are meant for models of this size and lie in the space.

    `besides` are points that are tried anyway.
    """
    found: list[dict[str, Any]] = []
    for known in preset.portfolio:
        if len(found) >= room or not known.suits(model_parameters) or not fits(space, known.values):
            continue
        point = completed(space, known.values, preset.baseline)
        if is_complete(space, point) and point not in [*besides, *found]:
            found.append(point)
    return found
