"""Slices: the last loss over one parameter at a time."""

from collections.abc import Iterator
from itertools import groupby
from statistics import median

from hpo_service.formatting.html import Markup
from hpo_service.formatting.values import value_text
from hpo_service.reports.blocks import Figure, Table
from hpo_service.reports.plots import losses
from hpo_service.reports.plots.parameters import (
    MOST_PARAMETERS,
    ParameterAxis,
    is_logarithmic,
    parameter_axis,
    searched,
)
from hpo_service.reports.plots.scales import Scale
from hpo_service.reports.plots.svg import BOTTOM, LEFT, RIGHT, TOP, Axis, dot, label, line, picture, vertical
from hpo_service.services.reports.facts import ReportedTrial, StudyReport

_LAST = ("base", "best")
_HEIGHT = BOTTOM + 24
_PARTS = 4


def parameter_slices(report: StudyReport) -> list[Figure]:
    """A figure a parameter, the most important ones first; none before the first rung."""
    return [_slice(report, name) for name in searched(report)[:MOST_PARAMETERS] if _trials(report, name)]


def _slice(report: StudyReport, name: str) -> Figure:
    trials = _trials(report, name)
    values = [trial.loss for trial in trials if trial.loss is not None]
    axis = parameter_axis(name, [trial.parameters[name] for trial in trials], log=is_logarithmic(report, name))
    seen = losses.of_baseline(report)[-1:]
    y = losses.loss_scale(values, seen=seen)
    ordered = sorted(trials, key=lambda trial: losses.key_of(report, trial).mark in _LAST)
    marks = [_mark(report, trial, axis, y) for trial in ordered]
    used = [] if len(trials) == len(report.trials) else [f" {len(trials)} trials use it."]
    return Figure(
        title=name,
        caption="Hollow: not trained to its end." + "".join(used) + losses.clipping(values, seen=seen),
        figures=_listed(axis, trials),
        plot=picture(
            f"Loss by {name}",
            line(LEFT, BOTTOM, RIGHT, BOTTOM, "axis"),
            *_ticks(axis),
            *vertical(Axis(scale=y, title="last loss")),
            *marks,
            height=_HEIGHT,
        ),
    )


def _trials(report: StudyReport, name: str) -> list[ReportedTrial]:
    return [trial for trial in report.trials if trial.loss is not None and name in trial.parameters]


def _mark(report: StudyReport, trial: ReportedTrial, axis: ParameterAxis, y: Scale) -> Markup:
    key = losses.key_of(report, trial)
    hollow = "" if trial.complete else " open"
    place = _across(axis.place(trial.parameters[axis.name]))
    loss = trial.loss if trial.loss is not None else y.high
    radius = 5.5 if key.mark in _LAST else 3.5
    return dot(place, y(loss), key.mark + hollow, losses.about(report, trial), radius)


def _ticks(axis: ParameterAxis) -> list[Markup]:
    marks = []
    for share, text in axis.ticks:
        place = _across(share)
        marks += [line(place, TOP, place, BOTTOM, "grid"), label(place, BOTTOM + 17, text)]
    return marks


def _listed(axis: ParameterAxis, trials: list[ReportedTrial]) -> Table:
    """The losses of each value, or of each quarter of the trials where there are many values."""
    groups = list(_quarters(axis.name, trials) if axis.scale is not None else _values(axis, trials))
    return Table(
        columns=(axis.name, "trials", "lowest last loss", "median"),
        rows=[(name, len(losses), f"{min(losses):.4f}", f"{median(losses):.4f}") for name, losses in groups],
    )


def _values(axis: ParameterAxis, trials: list[ReportedTrial]) -> Iterator[tuple[str, list[float]]]:
    ordered = sorted(trials, key=lambda trial: axis.place(trial.parameters[axis.name]))
    for value, found in groupby(ordered, key=lambda trial: value_text(trial.parameters[axis.name])):
        yield value, _losses(list(found))


def _quarters(name: str, trials: list[ReportedTrial]) -> Iterator[tuple[str, list[float]]]:
    ordered = sorted(trials, key=lambda trial: float(trial.parameters[name]))
    for part in range(_PARTS):
        found = ordered[part * len(ordered) // _PARTS : (part + 1) * len(ordered) // _PARTS]
        if found:
            low, high = (value_text(trial.parameters[name]) for trial in (found[0], found[-1]))
            yield low if low == high else f"{low} to {high}", _losses(found)


def _losses(trials: list[ReportedTrial]) -> list[float]:
    return [trial.loss for trial in trials if trial.loss is not None]


def _across(share: float) -> float:
    return LEFT + 8 + (RIGHT - LEFT - 16) * share
