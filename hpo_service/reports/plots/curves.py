"""Learning curves: the loss of trials at their rungs."""

from hpo_service.formatting.html import Markup
from hpo_service.reports.blocks import Figure, Table
from hpo_service.reports.plots import losses
from hpo_service.reports.plots.scales import Scale, scale_over
from hpo_service.reports.plots.svg import LEFT, RIGHT, Axis, dot, framed, polyline
from hpo_service.services.reports.facts import Drawn, ReportedTrial

_MOST_LISTED = 10
_ORDER = {"bad": 0, "run": 1, "stop": 2, "done": 3, "base": 4, "best": 5}


def learning_curves(report: Drawn) -> Figure | None:
    """None before the first rung."""
    trials = [trial for trial in report.trials if trial.losses]
    if not trials:
        return None
    values = [loss for trial in trials for loss in trial.losses.values()]
    seen = losses.of_baseline(report)
    x = scale_over([0, *(rung for trial in trials for rung in trial.losses)], LEFT, RIGHT, whole=True)
    y = losses.loss_scale(values, seen=seen)
    marks = [
        mark
        for trial in sorted(trials, key=lambda trial: _ORDER[losses.key_of(report, trial).mark])
        for mark in _curve(report, trial, x, y)
    ]
    left = len(report.points) - len(report.trials)
    sampled = (
        f" {len(report.trials)} of {len(report.points):,} trials are drawn: the leaders and a sample." if left else ""
    )
    return Figure(
        title="Learning curves",
        caption="A dot is a rung; a grey line ends where its trial was paused or pruned."
        + sampled
        + losses.clipping(values, seen=seen),
        plot=framed(
            "Loss by examples seen",
            Axis(scale=x, title="examples seen"),
            Axis(scale=y, title="evaluation loss"),
            *marks,
        ),
        legend=losses.legend(report, trials),
        figures=_listed(report, trials),
    )


def _curve(report: Drawn, trial: ReportedTrial, x: Scale, y: Scale) -> list[Markup]:
    kind, words = losses.key_of(report, trial).mark, losses.about(report, trial)
    points = [(x(rung), y(loss)) for rung, loss in sorted(trial.losses.items())]
    shown = points if kind in ("best", "base") else points[-1:]
    return [polyline(points, kind, words), *(dot(*point, kind, words, 2.6) for point in shown)]


def _listed(report: Drawn, trials: list[ReportedTrial]) -> Table:
    """The best few at every rung."""
    leaders = sorted(trials, key=losses.rank)[:_MOST_LISTED]
    rungs = sorted({rung for trial in leaders for rung in trial.losses})
    return Table(
        columns=("trial", "", *(f"{rung:,}" for rung in rungs)),
        rows=[
            (str(trial.number), losses.key_of(report, trial).text, *(_at(trial, rung) for rung in rungs))
            for trial in leaders
        ],
    )


def _at(trial: ReportedTrial, rung: int) -> str:
    return f"{trial.losses[rung]:.4f}" if rung in trial.losses else ""
