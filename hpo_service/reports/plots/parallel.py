"""Parallel coordinates: every trial as a line through its parameters to its loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpo_service.formatting.html import Markup
from hpo_service.reports.blocks import Figure, Key
from hpo_service.reports.plots import losses
from hpo_service.reports.plots.parameters import (
    MOST_PARAMETERS,
    ParameterAxis,
    is_logarithmic,
    parameter_axis,
    searched,
)
from hpo_service.reports.plots.scales import Scale, short
from hpo_service.reports.plots.svg import clipped, label, line, picture, polyline
from hpo_service.services.reports.facts import ReportedTrial, StudyReport

_HEIGHT, _TOP, _BOTTOM, _SIDE = 320, 40, 308, 70
_LEAST_GAP, _WIDTH = 124, 900
_LONGEST_NAME = 18
_BEST_SHARE = 0.1
_TEXT_GAP = 6
_LOSS = "last loss"
_TENTH, _OTHERS = Key(mark="done", text="best tenth"), Key(mark="stop", text="others")


@dataclass(frozen=True)
class _Frame:
    """Where the axes are; the last one is the loss."""

    axes: Sequence[ParameterAxis]

    @property
    def gap(self) -> float:
        """Between two axes."""
        return max(_LEAST_GAP, (_WIDTH - 2 * _SIDE) / (len(self.axes) - 1))

    @property
    def width(self) -> float:
        """Of the whole plot."""
        return self.x(len(self.axes) - 1) + _SIDE

    def x(self, place: int) -> float:
        """Of an axis."""
        return _SIDE + self.gap * place

    def pieces(self, values: Mapping[str, Any]) -> list[list[tuple[float, float]]]:
        """The points of a trial, apart where it does not use a parameter."""
        found: list[list[tuple[float, float]]] = [[]]
        for place, axis in enumerate(self.axes):
            if axis.name in values:
                found[-1].append((self.x(place), _y(axis.place(values[axis.name]))))
            else:
                found.append([])
        return [piece for piece in found if len(piece) > 1]


def parallel_coordinates(report: StudyReport) -> Figure | None:
    """None where fewer than two parameters differ, or before two trials have a loss."""
    trials = [trial for trial in report.trials if trial.loss is not None and trial.standing != "failed"]
    names = [name for name in searched(report) if any(name in trial.parameters for trial in trials)]
    shown = names[:MOST_PARAMETERS]
    if len(shown) < 2 or len(trials) < 2:
        return None
    axes = [parameter_axis(name, _values(trials, name), log=is_logarithmic(report, name)) for name in shown]
    seen = losses.of_baseline(report)[-1:]
    last = [trial.loss for trial in trials if trial.loss is not None]
    frame = _Frame([*axes, _loss_axis(losses.loss_scale(last, 0.0, 1.0, seen=seen))])
    leaders = _leaders(trials)
    ordered = sorted(trials, key=lambda trial: (_kind(report, trial, leaders) != "stop", trial is report.winner))
    marks = [mark for trial in ordered for mark in _lines(report, trial, frame, _kind(report, trial, leaders))]
    left = f" The {len(shown)} most important of {len(names)} parameters." if len(names) > len(shown) else ""
    return Figure(
        title="Parallel coordinates",
        caption="The best tenth of the trials stands out, those trained to their end first; a line has a gap where a "
        "trial does not use a parameter." + left + losses.clipping(last, seen=seen),
        plot=picture(
            "Parameters and loss of each trial",
            *marks,
            *(mark for place, axis in enumerate(frame.axes) for mark in _axis(frame.x(place), axis)),
            width=frame.width,
            height=_HEIGHT,
        ),
        legend=[losses.BEST, losses.BASELINE, _TENTH, _OTHERS],
        wide=True,
    )


def _values(trials: Sequence[ReportedTrial], name: str) -> list[Any]:
    return [trial.parameters[name] for trial in trials if name in trial.parameters]


def _loss_axis(scale: Scale) -> ParameterAxis:
    return ParameterAxis(
        name=_LOSS, scale=scale, places={}, ticks=[(scale(tick), short(tick)) for tick in scale.ticks()]
    )


def _leaders(trials: Sequence[ReportedTrial]) -> set[int]:
    ordered = sorted(trials, key=losses.rank)
    return {trial.number for trial in ordered[: max(1, round(len(ordered) * _BEST_SHARE))]}


def _kind(report: StudyReport, trial: ReportedTrial, leaders: set[int]) -> str:
    key = losses.key_of(report, trial)
    if key in (losses.BEST, losses.BASELINE):
        return key.mark
    return "done" if trial.number in leaders else "stop"


def _lines(report: StudyReport, trial: ReportedTrial, frame: _Frame, kind: str) -> list[Markup]:
    words = losses.about(report, trial)
    return [polyline(piece, kind, words) for piece in frame.pieces({**trial.parameters, _LOSS: trial.loss})]


def _axis(x: float, axis: ParameterAxis) -> list[Markup]:
    texts = [label(x - _TEXT_GAP, _y(share) + 4, text, anchor="end") for share, text in axis.ticks]
    return [line(x, _TOP, x, _BOTTOM, "axis"), label(x, _TOP - 16, clipped(axis.name, _LONGEST_NAME), kind=""), *texts]


def _y(share: float) -> float:
    return _BOTTOM - (_BOTTOM - _TOP) * share
