"""Search spaces that ship with the service: data files in the package `search_spaces`."""

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from ruamel.yaml import YAML

from hpo_service.errors import InvalidSpec, Problem
from hpo_service.spelling import did_you_mean

PRESETS = ("quick", "standard", "wide", "qlora", "small-data", "large-zero3")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A partial study spec. `source` is the commented YAML, `baseline` the published default in real values."""

    name: str
    title: str
    source: str
    document: dict[str, Any]
    baseline: dict[str, Any]


@cache
def load_preset(name: str) -> Preset:
    """The preset; InvalidSpec if there is none of this name."""
    if name not in PRESETS:
        detail = f"there is no preset {name[:64]!r}.{did_you_mean(name, PRESETS)} Presets: {', '.join(PRESETS)}."
        raise InvalidSpec(detail, problems=[Problem(detail=detail, pointer="/preset", allowed=PRESETS)])
    source = resources.files("search_spaces").joinpath(f"{name}.yaml").read_text("utf-8")
    document = YAML(typ="safe", pure=True).load(source)
    title, baseline = document.pop("title"), document.pop("baseline")
    return Preset(name=name, title=title, source=source, document=document, baseline=baseline)
