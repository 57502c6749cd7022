"""The candidates of a confirmation: every run, and the mean."""

from hpo_service.formatting.html import Markup
from hpo_service.reports.blocks import Figure, Key
from hpo_service.reports.plots.losses import BASELINE, BEST
from hpo_service.reports.plots.scales import Scale, scale_over, short
from hpo_service.reports.plots.svg import dot, label, line, picture
from hpo_service.services.confirmations.schemas import CandidateDocument, ConfirmationDocument

_WIDTH, _ROW, _LEFT, _RIGHT, _TOP = 460, 30, 118, 444, 8


def confirmed_losses(found: ConfirmationDocument, best: int | None) -> Figure | None:
    """None before the first run has ended."""
    candidates = [one for one in found.candidates if one.mean is not None]
    runs = [run.loss for one in candidates for run in one.runs if run.loss is not None]
    if not runs:
        return None
    scale = scale_over(runs, _LEFT, _RIGHT)
    bottom = _TOP + _ROW * len(candidates)
    marks: list[Markup] = []
    for tick in scale.ticks():
        place = scale(tick)
        marks += [line(place, _TOP, place, bottom, "grid"), label(place, bottom + 16, short(tick))]
    for place, one in enumerate(candidates):
        marks += _row(one, _TOP + _ROW * (place + 0.5), scale, best)
    return Figure(
        title="Losses with new seeds",
        caption="A hollow dot is a run with a new seed, a full one the mean over a candidate's runs.",
        plot=picture("Confirmed losses", *marks, width=_WIDTH, height=bottom + 24),
        legend=[BEST, BASELINE, Key(mark="done", text="others")],
    )


def _row(one: CandidateDocument, y: float, scale: Scale, best: int | None) -> list[Markup]:
    kind = "best" if one.trial_number == best else "base" if one.baseline else "done"
    losses = [run.loss for run in one.runs if run.loss is not None]
    name = f"trial {one.trial_number}"
    dots = [dot(scale(loss), y, f"{kind} open", f"{name}: {loss:.4f}", 4) for loss in losses]
    assert one.mean is not None
    return [
        label(_LEFT - 10, y + 4, f"{name}{' (base)' if one.baseline else ''}", anchor="end", kind=""),
        line(scale(min(losses)), y, scale(max(losses)), y, f"line {kind}"),
        *dots,
        dot(scale(one.mean), y, kind, f"{name}: mean {one.mean:.4f}", 5),
    ]
