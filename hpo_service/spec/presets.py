"""Search spaces that ship with the service: data files in the package `search_spaces`."""

import math
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from ruamel.yaml import YAML

from hpo_service.core.errors import InvalidSpec, Problem
from hpo_service.core.spelling import did_you_mean

PRESETS = ("quick", "standard", "wide", "qlora", "small-data", "large-zero3")


@dataclass(frozen=True, kw_only=True)
class KnownPoint:
    """A configuration that was published as good, for models from and up to so many parameters.

    `values` are real ones; what they leave out is as in the preset's baseline.
    """

    values: dict[str, Any]
    source: str
    from_parameters: float = 0.0
    to_parameters: float = math.inf

    def suits(self, model_parameters: int | None) -> bool:
        """Whether it is meant for a model of this size; for one of unknown size everything is."""
        return model_parameters is None or self.from_parameters <= model_parameters <= self.to_parameters


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A partial study spec. `source` is the commented YAML, `baseline` the published default in real values.

    `portfolio` are other published configurations, in the order in which they are tried.
    """

    name: str
    title: str
    source: str
    document: dict[str, Any]
    baseline: dict[str, Any]
    portfolio: tuple[KnownPoint, ...]


@cache
def load_preset(name: str) -> Preset:
    """The preset; InvalidSpec if there is none of this name."""
    if name not in PRESETS:
        detail = f"there is no preset {name[:64]!r}.{did_you_mean(name, PRESETS)} Presets: {', '.join(PRESETS)}."
        raise InvalidSpec(detail, problems=[Problem(detail=detail, pointer="/preset", allowed=PRESETS)])
    source = resources.files("search_spaces").joinpath(f"{name}.yaml").read_text("utf-8")
    document = YAML(typ="safe", pure=True).load(source)
    title, baseline, portfolio = (document.pop(key) for key in ("title", "baseline", "portfolio"))
    return Preset(
        name=name,
        title=title,
        source=source,
        document=document,
        baseline=baseline,
        portfolio=tuple(KnownPoint(**point) for point in portfolio),
    )
