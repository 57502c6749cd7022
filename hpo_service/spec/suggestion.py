"""A spec for a model and data: the preset that fits them, narrowed to where earlier studies were good, with reasons."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpo_service.spec.past import PastStudy, Traits

LARGE_PARAMETERS = 30_000_000_000
SMALL_ROWS = 5000
_ALIKE = 0.3
_FEWEST_VALUES = 4
_LOG_MARGIN = 3.0


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A value of a suggested spec and why it was chosen, one sentence."""

    value: Any
    why: str


@dataclass(frozen=True, kw_only=True)
class Bill:
    """What a study will probably take. None: the service has no experience with the model, or no price."""

    examples: int
    seconds: float | None
    usd: float | None

    @property
    def sentence(self) -> str:
        """For a comment."""
        if self.seconds is None:
            return (
                f"about {self.examples} examples; how long that takes is unknown before the first study of this model"
            )
        money = "" if self.usd is None else f" and {self.usd:.2f} USD"
        hours = f"{self.seconds / 3600:.1f} hours" if self.seconds >= 5400 else f"{self.seconds / 60:.0f} minutes"
        return f"about {self.examples} examples, {hours} of a worker{money} at the rates of earlier studies"


def fitting_preset(traits: Traits, train_rows: int) -> Choice:
    """The preset for a model of this size and so many rows."""
    size = traits.model_parameters
    if size is not None and size >= LARGE_PARAMETERS:
        return Choice(value="large-zero3", why=f"{size / 1e9:.0f} billion parameters are sharded over several GPUs")
    if train_rows < SMALL_ROWS:
        return Choice(value="small-data", why=f"{train_rows} rows are few, so overfitting decides")
    return Choice(value="standard", why=f"{train_rows} rows and a model that one GPU holds")


def narrowed(space: Mapping[str, Any], past: Sequence[PastStudy]) -> dict[str, Choice]:
    """Forms, as a user writes them, of the parameters whose range can shrink to where similar studies were best."""
    alike = [study for study in past if study.similarity >= _ALIKE]
    best = [point for study in alike for point in _best(study)]
    told = ", ".join(study.study for study in alike)
    found = {}
    for name, form in space.items():
        values = [float(point[name]) for point in best if isinstance(point.get(name), int | float)]
        smaller = _smaller(form, values) if len(values) >= _FEWEST_VALUES and isinstance(form, Mapping) else None
        if smaller is not None:
            between = f"the best quarter of the trials of {told} lies between {min(values):g} and {max(values):g}"
            found[name] = Choice(value=smaller, why=between)
    return found


def written(spec: Mapping[str, Any], reasons: Mapping[str, str]) -> str:
    """The spec as YAML, with the reason above each key that has one: `reasons` are by path, such as `space.lora_r`."""
    lines = ["# A suggestion. Every choice has its reason; change what you know better."]
    for key, value in spec.items():
        lines += _commented(reasons.get(key), "")
        if not isinstance(value, Mapping):
            lines.append(f"{key}: {json.dumps(value)}")
            continue
        lines.append(f"{key}:")
        for inner, part in value.items():
            lines += [*_commented(reasons.get(f"{key}.{inner}"), "  "), f"  {inner}: {json.dumps(part)}"]
    return "\n".join(lines) + "\n"


def _commented(reason: str | None, indent: str) -> list[str]:
    return [] if reason is None else [f"{indent}# {reason[:1].upper()}{reason[1:]}."]


def _best(study: PastStudy) -> list[dict[str, Any]]:
    return [study.points[index] for index in study.good]


def _smaller(form: Mapping[str, Any], values: Sequence[float]) -> dict[str, Any] | None:
    """Around the values: a factor to both sides on a log scale, the neighbours of choices; None if nothing shrinks."""
    if form.get("log"):
        low = max(float(form["low"]), _rounded(min(values) / _LOG_MARGIN))
        high = min(float(form["high"]), _rounded(max(values) * _LOG_MARGIN))
        shrinks = low < high and (low, high) != (form["low"], form["high"]) and form.get("type") != "int"
        return {**form, "low": low, "high": high} if shrinks else None
    choices = form.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, int | float) for choice in choices):
        return None
    below = [choice for choice in choices if choice < min(values)][-1:]
    above = [choice for choice in choices if choice > max(values)][:1]
    kept = [*below, *(choice for choice in choices if min(values) <= choice <= max(values)), *above]
    return {**form, "choices": kept} if 1 < len(kept) < len(choices) else None


def _rounded(value: float) -> float:
    """To two significant digits."""
    return round(value, 1 - math.floor(math.log10(value)))
