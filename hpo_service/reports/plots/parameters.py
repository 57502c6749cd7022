"""Searched parameters on an axis: numbers on a scale, few values and words one beside the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpo_service.formatting.values import value_text
from hpo_service.reports.plots.scales import Scale, scale_over, short
from hpo_service.reports.plots.svg import clipped
from hpo_service.services.reports.facts import StudyReport

MOST_PARAMETERS = 8
_FEW = 6
_MOST_TICKS = 10
_LONGEST = 12


@dataclass(frozen=True, kw_only=True)
class ParameterAxis:
    """Places from 0 to 1. `ticks` are places with what is written there."""

    name: str
    scale: Scale | None
    places: Mapping[str, float]
    ticks: Sequence[tuple[float, str]]

    def place(self, value: object) -> float:
        """Where a value is."""
        if self.scale is not None and isinstance(value, int | float):
            return self.scale(float(value))
        return self.places[value_text(value)]


def searched(report: StudyReport) -> list[str]:
    """Parameters that differ between trials, the most important ones first."""
    values: dict[str, set[str]] = {}
    for trial in report.trials:
        for name, value in trial.parameters.items():
            values.setdefault(name, set()).add(value_text(value))
    shares = {entry.parameter: entry.share for entry in report.importances.importances}
    different = [name for name, found in values.items() if len(found) > 1]
    return sorted(different, key=lambda name: (-shares.get(name, -1.0), name))


def is_logarithmic(report: StudyReport, name: str) -> bool:
    """Whether the space searches it by its logarithm."""
    form = report.study.resolved["space"]["parameters"].get(name)
    return isinstance(form, Mapping) and form.get("log") is True


def parameter_axis(name: str, values: Sequence[Any], *, log: bool = False) -> ParameterAxis:
    """The axis that holds these values; `log` where they are positive numbers that are searched by their logarithm."""
    numbers = [float(value) for value in values if _is_number(value)]
    if len(numbers) == len(values) and len(set(numbers)) > _FEW:
        scale = scale_over(numbers, 0.0, 1.0, log=log and min(numbers) > 0)
        return ParameterAxis(
            name=name, scale=scale, places={}, ticks=[(scale(tick), short(tick)) for tick in scale.ticks(4)]
        )
    ordered = sorted(set(values), key=float) if len(numbers) == len(values) else sorted(map(value_text, values))
    words = list(dict.fromkeys(value_text(value) for value in ordered))
    places = {word: (place + 0.5) / len(words) for place, word in enumerate(words)}
    every = -(-len(words) // _MOST_TICKS)
    ticks = [(place, clipped(_tick(word), _LONGEST)) for word, place in list(places.items())[::every]]
    return ParameterAxis(name=name, scale=None, places=places, ticks=ticks)


def _tick(word: str) -> str:
    try:
        return short(float(word))
    except ValueError:
        return word


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
