"""Optimization history: every trial's last loss by number, and the best so far."""

import math

from hpo_service.formatting.html import Markup
from hpo_service.reports.blocks import Figure, Key, Table
from hpo_service.reports.plots import losses
from hpo_service.reports.plots.scales import Scale, scale_over
from hpo_service.reports.plots.svg import LEFT, RIGHT, Axis, dot, framed, polyline
from hpo_service.services.reports.facts import StudyReport
from hpo_service.storage.queries.reports import TrialPoint

MOST_DOTS = 800
_MOST_LISTED = 20
_SO_FAR = Key(mark="best", text="best complete trial so far")


def history(report: StudyReport) -> Figure | None:
    """None before the first rung."""
    known = [point for point in report.points if point.loss is not None and point.state != "FAIL"]
    if not known:
        return None
    steps = record(known)
    records = {number for number, _ in steps}
    stride = -(-len(known) // MOST_DOTS)
    shown = [point for place, point in enumerate(known) if place % stride == 0 or point.number in records]
    values = [point.loss for point in known if point.loss is not None]
    x = scale_over([point.number for point in known], LEFT + 6, RIGHT - 6, whole=True)
    seen = losses.of_baseline(report)[-1:]
    y = losses.loss_scale(values, seen=seen)
    sampled = (
        f" One in {stride} of {len(known):,} trials is drawn, and each that was the best so far." if stride > 1 else ""
    )
    marks = [*(_dot(point, x, y) for point in shown), *_staircase(steps, known[-1].number, x, y)]
    return Figure(
        title="Optimization history",
        caption="Hollow dots are trials that were paused or pruned, or that still run: their loss may fall."
        + sampled
        + losses.clipping(values, seen=seen),
        plot=framed("Loss by trial number", Axis(scale=x, title="trial"), Axis(scale=y, title="last loss"), *marks),
        legend=[_SO_FAR, losses.COMPLETE, Key(mark="stop", text="not trained to its end")],
        figures=Table(
            columns=("trial", "best complete so far"),
            rows=[(str(n), f"{loss:.4f}") for n, loss in steps[-_MOST_LISTED:]],
        ),
    )


def record(points: list[TrialPoint]) -> list[tuple[int, float]]:
    """Number and loss of each complete trial that was better than all complete ones with lower numbers."""
    best, found = math.inf, list[tuple[int, float]]()
    for point in points:
        if point.state == "COMPLETE" and point.loss is not None and point.loss < best:
            best = point.loss
            found.append((point.number, best))
    return found


def _dot(point: TrialPoint, x: Scale, y: Scale) -> Markup:
    assert point.loss is not None
    kind = "done" if point.state == "COMPLETE" else "stop open"
    words = f"trial {point.number}: loss {point.loss:.4f} after {point.examples:,} examples"
    return dot(x(point.number), y(point.loss), kind, words, 3)


def _staircase(steps: list[tuple[int, float]], last: int, x: Scale, y: Scale) -> list[Markup]:
    if not steps:
        return []
    corners = list[tuple[float, float]]()
    for number, loss in steps:
        if corners:
            corners.append((x(number), corners[-1][1]))
        corners.append((x(number), y(loss)))
    corners.append((x(last), corners[-1][1]))
    return [polyline(corners, "best", "best complete trial so far")]
