"""Whether a trial that is to be promoted is better than the baseline, and how sure that is. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpo_service.formatting.comparison import over, reached
from hpo_service.search.best import Best
from hpo_service.search.confirmation.statistics import RunResult, difference


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A trial against the baseline, after `examples` and `baseline_examples`. `difference` is its loss minus the other.

    The true difference is within `half_width` of it with 95 %. Both losses are means over the `seeds` new ones that
    both have; 0 means the search's one seed, where how much seeds matter is assumed and not measured.
    """

    baseline_trial: int
    baseline_loss: float
    loss: float
    examples: int
    baseline_examples: int
    difference: float
    half_width: float | None
    seeds: int

    @property
    def better(self) -> bool:
        """Whether the interval leaves no doubt."""
        return self.half_width is not None and self.difference < -self.half_width


def compare(best: Best, folds: Sequence[float], baseline_folds: Sequence[float]) -> Comparison | None:
    """None without a baseline, or if the trial is the baseline itself.

    The folds are the mean evaluation losses of both at the rung of `best.improvement`; they are not needed for a
    confirmed trial, whose interval is known.
    """
    found = best.improvement
    if found is None or found.baseline_trial == best.trial_number:
        return None
    known = best.confirmed
    if known is not None:
        half_width = known.half_width
    else:
        one_seed = [
            RunResult(candidate=best.trial_number, seed=0, loss=found.loss, folds=tuple(folds)),
            RunResult(candidate=found.baseline_trial, seed=0, loss=found.baseline_loss, folds=tuple(baseline_folds)),
        ]
        gap = difference(one_seed, best.trial_number, found.baseline_trial)
        half_width = None if gap is None else gap.half_width
    return Comparison(
        baseline_trial=found.baseline_trial,
        baseline_loss=found.baseline_loss,
        loss=found.loss,
        examples=found.examples,
        baseline_examples=found.baseline_examples,
        difference=found.difference,
        half_width=half_width,
        seeds=found.seeds,
    )


def verdict(best: Best, found: Comparison | None) -> str:
    """A sentence for people who decide."""
    if found is None:
        itself = best.improvement is not None
        return "It is the baseline itself." if itself else "There is no baseline to compare it with."
    amount = f"{abs(found.difference):.4f}"
    if found.half_width is not None:
        amount += f" ± {found.half_width:.4f}"
    between = "" if found.baseline_examples == found.examples else ","
    how = f"{over(found.seeds)}{between} {reached(found.examples, found.baseline_examples)}"
    if not found.seeds:
        how += ", not confirmed"
    if found.better:
        return f"Better than the baseline by {amount} loss {how}."
    if found.half_width is not None and found.difference > found.half_width:
        return f"Worse than the baseline by {amount} loss {how}."
    word = "lower" if found.difference <= 0 else "higher"
    return f"Not known to be better than the baseline: its loss is {amount} {word} {how}."


@dataclass(frozen=True, kw_only=True)
class Change:
    """A value that two promotions do not share; None where one of them has no such value."""

    path: str
    before: Any
    after: Any


def changes(before: Mapping[str, Any], after: Mapping[str, Any], path: str = "") -> list[Change]:
    """Every value that differs, by its path (`parameters.lora_r`), in the order in which `after` has them."""
    found: list[Change] = []
    for name in [*after, *(name for name in before if name not in after)]:
        old, new = before.get(name), after.get(name)
        here = f"{path}{name}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += changes(old, new, f"{here}.")
        elif old != new:
            found.append(Change(path=here, before=old, after=new))
    return found
