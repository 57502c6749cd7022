"""Slices: the last loss over one parameter at a time."""

from hpo_service.markup import Markup
from hpo_service.reports.blocks import Figure
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
from hpo_service.studies.report_facts import ReportedTrial, StudyReport

_LAST = ("base", "best")
_HEIGHT = BOTTOM + 24


def parameter_slices(report: StudyReport) -> list[Figure]:
    """A figure a parameter, the most important ones first; none before the first rung."""
    return [_slice(report, name) for name in searched(report)[:MOST_PARAMETERS] if _trials(report, name)]


def _slice(report: StudyReport, name: str) -> Figure:
    trials = _trials(report, name)
    values = [trial.loss for trial in trials if trial.loss is not None]
    axis = parameter_axis(name, [trial.parameters[name] for trial in trials], log=is_logarithmic(report, name))
    y = losses.loss_scale(values)
    ordered = sorted(trials, key=lambda trial: losses.key_of(report, trial).mark in _LAST)
    marks = [_mark(report, trial, axis, y) for trial in ordered]
    used = [] if len(trials) == len(report.trials) else [f" {len(trials)} trials use it."]
    return Figure(
        title=name,
        caption="Hollow: not trained to its end." + "".join(used) + losses.clipping(values),
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


def _across(share: float) -> float:
    return LEFT + 8 + (RIGHT - LEFT - 16) * share
