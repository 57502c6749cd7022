"""What more compute would be expected to buy, from the numbers of a study's latest decision. An estimate.

The decision expects an improvement e of the final loss for a slice's way to its end, which costs c full trials; a full
trial costs h GPU-hours, as the study's own slices did. The rate e / (c h) falls as the search goes on: as for records
in a series of draws, it is taken to fall like 1 / (hours spent). From S hours spent, B more are then expected to bring

    gain(B) = e / (c h) * S * ln(1 + B / S)

Nothing is said of more than ten times what was spent: the rate's fall is an assumption, and errors grow with B / S.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hpo_service.core.study_rules import Spent

_SECONDS_PER_HOUR = 3600
_MORE_GPU_HOURS = 10.0
_MORE_OF_THE_BILL = 0.1
_FURTHEST = 10.0


@dataclass(frozen=True, kw_only=True)
class Purchase:
    """So much more compute, and by how much it is expected to lower the best loss. `usd` is None where no price is."""

    gpu_hours: float
    usd: float | None
    expected_improvement: float


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """Another 10 GPU-hours, if that is not too far to see, and another tenth of what was spent."""

    best_loss: float
    ten_gpu_hours: Purchase | None
    tenth_of_the_bill: Purchase


def outlook(numbers: Mapping[str, object], spent: Spent, full_trial_examples: int) -> Outlook | None:
    """None where the decision has no expected improvement or nothing was measured yet."""
    gain, cost, best = (_number(numbers, key) for key in ("expected_improvement", "cost_in_full_trials", "best_loss"))
    if gain is None or not best or not cost or spent.seconds <= 0 or spent.examples <= 0:
        return None
    hours = spent.seconds / _SECONDS_PER_HOUR
    hours_of_full_trial = hours / spent.examples * full_trial_examples
    rate = gain / (cost * hours_of_full_trial)

    def buy(more: float) -> Purchase:
        return Purchase(
            gpu_hours=more,
            usd=spent.usd / hours * more if spent.usd else None,
            expected_improvement=min(best, rate * hours * math.log1p(more / hours)),
        )

    return Outlook(
        best_loss=best,
        ten_gpu_hours=buy(_MORE_GPU_HOURS) if _FURTHEST * hours >= _MORE_GPU_HOURS else None,
        tenth_of_the_bill=buy(_MORE_OF_THE_BILL * hours),
    )


def _number(numbers: Mapping[str, object], key: str) -> float | None:
    value = numbers.get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
