"""Who leads: the trial that is ahead of every other at the highest rung at which both have a loss.

A trial with a loss that is no number does not lead, whatever its other losses are.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite

Losses = Mapping[int, float]
"""Loss by rung, in examples."""


@dataclass(frozen=True, kw_only=True)
class Lead:
    """Two trials after the same number of examples, the highest at which both have a loss."""

    examples: int
    loss: float
    other_loss: float

    @property
    def is_ahead(self) -> bool:
        """Whether the first has the lower loss."""
        return self.loss < self.other_loss


def compare(ours: Losses, theirs: Losses) -> Lead | None:
    """None if there is no rung at which both have a finite loss."""
    common = [rung for rung, loss in ours.items() if isfinite(loss) and isfinite(theirs.get(rung, float("nan")))]
    if not common:
        return None
    rung = max(common)
    return Lead(examples=rung, loss=ours[rung], other_loss=theirs[rung])


def leader(trials: Mapping[int, Losses]) -> int | None:
    """The number of the leader; None before any finite loss. Equal losses: the lower number is ahead.

    Whoever is ahead of all others is the best at its own highest rung, so only those few are compared with each other.
    If each of them is behind another (A ahead of B, B of C, C of A), the furthest trained of them leads.
    """
    known = {number: losses for number, losses in trials.items() if losses and _is_finite(losses)}
    contenders = _contenders(known)
    if not contenders:
        return None
    unbeaten = [
        number
        for number in contenders
        if not any(_is_behind(number, other, known) for other in contenders if other != number)
    ]
    return max(
        unbeaten or contenders, key=lambda number: (max(known[number]), -known[number][max(known[number])], -number)
    )


def _contenders(known: Mapping[int, Losses]) -> list[int]:
    """Those that are the best at the highest rung that they reached."""
    best: dict[int, tuple[float, int]] = {}
    for number, losses in known.items():
        for rung, loss in losses.items():
            best[rung] = min(best.get(rung, (loss, number)), (loss, number))
    return [number for number, losses in known.items() if best[max(losses)][1] == number]


def _is_behind(number: int, other: int, known: Mapping[int, Losses]) -> bool:
    lead = compare(known[other], known[number])
    return lead is not None and (lead.loss, other) < (lead.other_loss, number)


def _is_finite(losses: Losses) -> bool:
    return all(map(isfinite, losses.values()))


def ahead_of(best: Losses, trials: Iterable[tuple[int, Losses]]) -> list[int]:
    """Numbers of the trials that are ahead of `best` at the highest rung both reached, the furthest ahead first."""
    leads = [(compare(losses, best), number) for number, losses in trials if _is_finite(losses)]
    ahead = [(lead.loss / lead.other_loss, number) for lead, number in leads if lead is not None and lead.is_ahead]
    return [number for _, number in sorted(ahead)]
