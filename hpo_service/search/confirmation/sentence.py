"""What a confirmation has found, as the sentence that a person needs. Pure."""

import math
from collections.abc import Sequence
from itertools import combinations

from hpo_service.search.best import Confirmed
from hpo_service.search.confirmation.report import Report, Standing
from hpo_service.search.confirmation.statistics import Difference

_CHEAPER = 0.05
"""A smaller part of what the training takes is not worth a word."""


def sentence(found: Report, *, over: bool) -> str:
    """Who won, against what, and who cannot be told from the winner. `over`: no other run will follow."""
    if not found.finalists:
        if found.ended is not None:
            return "Nothing could be confirmed: no run ended well."
        early = "Nothing could be confirmed: it ended before every candidate had a run with the same seed."
        return early if over else "Nothing is confirmed yet."
    winner = min(found.finalists, key=lambda one: (one.mean, one.trial_number))
    tied = _tied(found, winner)
    parts = [
        _against_baseline(found, winner, tied),
        *_ties(found, winner, tied),
        *_beaten(found, winner),
        *_cheaper(found, winner, tied),
        *_unpaid(found),
        *_tested(found, winner),
    ]
    if winner.seeds == 1:
        parts.append("With one seed each, how much seeds matter is assumed and not measured")
    return ". ".join(parts) + "."


def _against_baseline(found: Report, winner: Confirmed, tied: Sequence[Standing]) -> str:
    baseline = found.baseline
    name = f"Trial {winner.trial_number}"
    spread = "" if winner.spread is None else f", standard deviation {winner.spread:.4f}"
    mean = f"{winner.mean:.4f} (mean over {_seeds(winner.seeds)}{spread})"
    if baseline is None:
        return f"{name} has a loss of {mean}; there is no baseline to compare it with"
    if baseline.trial_number == winner.trial_number:
        beats = "is known to beat" if tied else "beats"
        return f"No configuration {beats} your current one, which has a loss of {mean}"
    gap = found.difference(winner.trial_number, baseline.trial_number)
    ends = _ends(found.standing(winner.trial_number), baseline)
    if gap is None:
        return f"{name} has a loss of {mean}; your current configuration has no run with the same seed"
    if gap.separated:
        word = "beats" if gap.mean < 0 else "is behind"
        return f"{name} {word} your current configuration by {_amount(gap)}{ends}; its loss is {mean}"
    if baseline.out is not None and baseline.out.why == "behind":
        return f"{name} has a loss of {mean}; your current configuration was {baseline.out.words}"
    word = "lower" if gap.mean <= 0 else "higher"
    return (
        f"{name} and your current configuration cannot be told apart ({_amount(gap, word)}{ends}): "
        "no configuration is known to beat yours"
    )


def _ends(winner: Standing, baseline: Standing) -> str:
    """Where they are trained on different numbers of examples, a difference is not of parameters alone."""
    if winner.examples == baseline.examples:
        return ""
    return f", each at its own end: {winner.examples} and {baseline.examples} examples"


def _rivals(found: Report, winner: Confirmed) -> list[Standing]:
    """Searched candidates of which nobody knows yet that they are worse than another one; they have a run."""
    return [
        one
        for one in sorted(found.standings, key=lambda one: one.trial_number)
        if one.trial_number != winner.trial_number
        and not one.baseline
        and one.mean is not None
        and (one.out is None or one.out.why == "unpaid")
    ]


def _tied(found: Report, winner: Confirmed) -> list[Standing]:
    gaps = [(one, found.difference(winner.trial_number, one.trial_number)) for one in _rivals(found, winner)]
    return [one for one, gap in gaps if gap is not None and not gap.separated]


def _ties(found: Report, winner: Confirmed, tied: Sequence[Standing]) -> list[str]:
    """All pairs of the winner and those tied with it; two of them may well be told apart."""
    if not tied:
        return []
    others = [one.trial_number for one in tied]
    apart = [gap for pair in combinations(others, 2) if (gap := found.difference(*pair)) is not None and gap.separated]
    if found.baseline is not None and found.baseline.trial_number == winner.trial_number:
        said = f"{_trials(others)} cannot be told apart from it"
    elif apart:
        said = f"Trial {winner.trial_number} cannot be told apart from {_trials(others, 'trial')}"
    else:
        said = f"{_trials(sorted([winner.trial_number, *others]))} cannot be told apart"
    return [", but ".join([said, *(_beats(gap, "trial") for gap in apart)])]


def _beaten(found: Report, winner: Confirmed) -> list[str]:
    """Rivals that are known to be worse, though the race ended before it could put them out."""
    gaps = [found.difference(winner.trial_number, one.trial_number) for one in _rivals(found, winner)]
    return [_beats(gap, "Trial") for gap in gaps if gap is not None and gap.separated]


def _cheaper(found: Report, winner: Confirmed, tied: Sequence[Standing]) -> list[str]:
    """The cheapest of those tied with the winner, and whether it is known to beat the baseline as the winner is."""
    dear = found.standing(winner.trial_number)
    saved = max(((one.saves(dear), -one.trial_number) for one in tied), default=(0.0, 0))
    if saved[0] <= _CHEAPER:
        return []
    number = -saved[1]
    said = f"Trial {number} is {saved[0]:.0%} cheaper to train"
    if _beats_baseline(found, winner.trial_number) and not _beats_baseline(found, number):
        said += ", but it is not known to beat your current configuration"
    return [said]


def _beats_baseline(found: Report, number: int) -> bool:
    gap = None if found.baseline is None else found.difference(number, found.baseline.trial_number)
    return gap is not None and gap.separated and gap.mean < 0


def _unpaid(found: Report) -> list[str]:
    numbers = [
        one.trial_number for one in found.standings if one.out is not None and one.out.why == "unpaid" and not one.runs
    ]
    return [f"No examples were left for {_trials(sorted(numbers), 'trial')}"] if numbers else []


def _tested(found: Report, winner: Confirmed) -> list[str]:
    """Test losses over the seeds that the winner and the baseline share: hard seeds count for both."""
    if winner.test_loss is None:
        return []
    said = f"On the test rows trial {winner.trial_number} has a loss of"
    baseline = found.baseline
    alone = f"{said} {winner.test_loss:.4f} (mean over {_seeds(winner.seeds)})"
    if baseline is None or baseline.trial_number == winner.trial_number:
        return [alone]
    ours, theirs = found.standing(winner.trial_number).test_losses, baseline.test_losses
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        return [alone]
    loss, other = (math.fsum(each[seed] for seed in shared) / len(shared) for each in (ours, theirs))
    return [f"{said} {loss:.4f} and your current configuration {other:.4f}, over {_shared(len(shared))}"]


def _beats(gap: Difference, trial: str) -> str:
    better, worse = (gap.candidate, gap.other) if gap.mean < 0 else (gap.other, gap.candidate)
    return f"{trial} {better} beats trial {worse} by {_amount(gap)}"


def _amount(gap: Difference, word: str = "loss") -> str:
    return f"{abs(gap.mean):.4f} ± {gap.half_width:.4f} {word} over {_shared(gap.seeds)}"


def _trials(numbers: Sequence[int], trial: str = "Trial") -> str:
    if len(numbers) == 1:
        return f"{trial} {numbers[0]}"
    return f"{trial}s {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"


def _shared(count: int) -> str:
    return f"the {_seeds(count)} that both have"
