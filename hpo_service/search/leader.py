"""Who leads: the trial that is ahead of every other at the highest rung at which both have a loss, see `compare`.

A trial with a loss that is no number does not lead, whatever its other losses are.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite

Losses = Mapping[int, float]
"""Loss by rung, in examples."""


@dataclass(frozen=True, kw_only=True)
class Lead:
    """Two trials after the same number of examples, the highest at which both have a loss.

    Or the one that is ahead after fewer examples than the other, which was not evaluated there.
    """

    examples: int
    loss: float
    other_loss: float
    other_examples: int

    @property
    def is_ahead(self) -> bool:
        """Whether the first has the lower loss."""
        return self.loss < self.other_loss


def compare(ours: Losses, theirs: Losses) -> Lead | None:
    """None if there is no rung at which both have a finite loss, and neither is lower with fewer examples.

    A trial need not be evaluated at every rung: a bracket of hyperband may begin late. So one that was trained further
    may have no loss where the other one stopped. It is behind if its next loss, after more examples, is higher still.
    """
    ours, theirs = _finite(ours), _finite(theirs)
    if not ours or not theirs:
        return None
    rung, beyond = max(ours), max(theirs)
    if rung < beyond and rung not in theirs:
        after = min(other for other in theirs if other > rung)
        if ours[rung] < theirs[after]:
            return Lead(examples=rung, loss=ours[rung], other_loss=theirs[after], other_examples=after)
    elif beyond < rung and beyond not in ours:
        after = min(own for own in ours if own > beyond)
        if theirs[beyond] < ours[after]:
            return Lead(examples=after, loss=ours[after], other_loss=theirs[beyond], other_examples=beyond)
    common = max(ours.keys() & theirs.keys(), default=None)
    if common is None:
        return None
    return Lead(examples=common, loss=ours[common], other_loss=theirs[common], other_examples=common)


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


def _finite(losses: Losses) -> Losses:
    return {rung: loss for rung, loss in losses.items() if isfinite(loss)}


def _is_finite(losses: Losses) -> bool:
    return all(map(isfinite, losses.values()))


def ahead_of(best: Losses, trials: Iterable[tuple[int, Losses]]) -> list[int]:
    """Numbers of the trials that are ahead of `best`, see `compare`, the furthest ahead first."""
    leads = [(compare(losses, best), number) for number, losses in trials if _is_finite(losses)]
    ahead = [(lead.loss / lead.other_loss, number) for lead, number in leads if lead is not None and lead.is_ahead]
    return [number for _, number in sorted(ahead)]
