"""What plots of losses share: marks by standing, and a scale that a few bad trials do not spoil."""

import math
from collections.abc import Sequence

from hpo_service.reports.blocks import Key
from hpo_service.reports.plots.scales import Scale, scale_over
from hpo_service.reports.plots.svg import BOTTOM, TOP
from hpo_service.services.reports.facts import Drawn, ReportedTrial

BEST = Key(mark="best", text="best trial")
BASELINE = Key(mark="base", text="baseline")
COMPLETE = Key(mark="done", text="trained to its end")
STOPPED = Key(mark="stop", text="paused or pruned")
RUNNING = Key(mark="run", text="running")
FAILED = Key(mark="bad", text="failed")
_BY_STANDING = {
    "complete": COMPLETE,
    "pruned": STOPPED,
    "paused": STOPPED,
    "running": RUNNING,
    "waiting": RUNNING,
    "failed": FAILED,
}
_TAIL = 3.0


def key_of(report: Drawn, trial: ReportedTrial) -> Key:
    """How a trial is drawn."""
    if report.best is not None and trial.number == report.best.trial_number:
        return BEST
    return BASELINE if trial.baseline else _BY_STANDING[trial.standing]


def legend(report: Drawn, trials: Sequence[ReportedTrial]) -> list[Key]:
    """The entries that are needed, always in the same order."""
    used = {key_of(report, trial).mark for trial in trials}
    return [key for key in (BEST, BASELINE, COMPLETE, STOPPED, RUNNING, FAILED) if key.mark in used]


def of_baseline(report: Drawn) -> list[float]:
    """Its losses, rung by rung: they are seen in every plot, because all others are compared with them."""
    found = next((trial for trial in report.trials if trial.baseline), None)
    return [] if found is None else [loss for _, loss in sorted(found.losses.items())]


def ceiling(losses: Sequence[float], seen: Sequence[float] = ()) -> float:
    """Losses above it are drawn at the upper edge: it lies three times as far from the least as three quarters do.

    It is no lower than any of those to be `seen`.
    """
    known = sorted(losses)
    least, quarter = known[0], known[len(known) * 3 // 4]
    top = min(known[-1], least + _TAIL * (quarter - least)) if quarter > least else known[-1]
    return max(top, *seen) if seen else top


def loss_scale(
    losses: Sequence[float], start: float = BOTTOM, end: float = TOP + 4, *, seen: Sequence[float] = ()
) -> Scale:
    """Upwards."""
    top = ceiling(losses, seen) if losses else 1.0
    return scale_over([min(loss, top) for loss in losses], start, end)


def clipping(losses: Sequence[float], *, seen: Sequence[float] = ()) -> str:
    """How many losses are higher than the plot, as a sentence; nothing if none is."""
    if not losses:
        return ""
    top = ceiling(losses, seen)
    above = sum(loss > top for loss in losses)
    count, verb = ("1 loss", "is") if above == 1 else (f"{above:,} losses", "are")
    return f" {count} above {top:.3g} {verb} drawn at the upper edge." if above else ""


def rank(trial: ReportedTrial) -> tuple[bool, int, float, int]:
    """For sorting: complete trials by loss, then the others by how far they came and by loss."""
    loss = math.inf if trial.loss is None else trial.loss
    return (not trial.complete, 0 if trial.complete else -max(trial.losses, default=0), loss, trial.number)


def about(report: Drawn, trial: ReportedTrial) -> str:
    """What is said of a trial on hovering."""
    loss = "no loss" if trial.loss is None else f"loss {trial.loss:.4f} after {max(trial.losses):,} examples"
    return f"trial {trial.number}, {key_of(report, trial).text}: {loss}"
