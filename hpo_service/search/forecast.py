"""What a running study will have cost in the end, and when that will be: with the range that is honest."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import sqrt
from statistics import fmean, stdev

from hpo_service.core.study_rules import Limits, Spent

#: How many examples came after a share of a study, in units of those that were expected to come: fewest, in the
#: middle, most of nine in ten simulated studies of each strategy; the second number is added once per share.
_PRUNING = ((0.5, -0.35), (0.85, -0.3), (1.1, 0.0))
_RESUMING = ((0.85, -0.35), (1.0, -0.2), (1.7, 0.5))
_EXACT = ((1.0, 0.0),) * 3
#: what the pace may be off before several trials were timed
_UNKNOWN_PACE = 0.5


@dataclass(frozen=True, kw_only=True)
class Range:
    """What is expected, and between what it was nine times in ten."""

    low: float
    expected: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """In all, what is spent already included. The ends are moments by the database's clock."""

    examples: Range
    gpu_hours: Range
    usd: Range
    ends_at: datetime
    earliest: datetime
    latest: datetime


def remaining_examples(expected: Sequence[float], reached: Sequence[int], rungs: Sequence[int]) -> float:
    """Examples to come if so many trials in all are expected at each rung and so many have reached it."""
    begins = (0, *rungs)
    missing = (max(0.0, count - there) for count, there in zip(expected, reached, strict=True))
    return sum(trials * (end - begin) for trials, begin, end in zip(missing, begins, rungs, strict=False))


def spread(strategy: str, share: float) -> tuple[float, float, float]:
    """What the examples to come are multiplied with after a share of them has been seen: low, middle, high."""
    factors = _EXACT if strategy == "none" else _RESUMING if strategy == "freeze_thaw" else _PRUNING
    low, middle, high = (start + slope * share for start, slope in factors)
    return low, middle, high


def forecast(
    strategy: str,
    remaining: float,
    spent: Spent,
    paces: Sequence[float],
    *,
    devices: float,
    usd_per_second: float,
    now: datetime,
) -> Forecast | None:
    """None before anything was measured. `paces` are device seconds per example of single trials.

    `devices` is how many the study keeps busy. Caps are left to `capped`.
    """
    if not spent.examples or not spent.seconds:
        return None
    pace = spent.seconds / spent.examples
    off = _uncertainty(paces)
    to_come = [remaining * factor for factor in spread(strategy, spent.examples / (spent.examples + remaining))]
    seconds = [each * pace * slower for each, slower in zip(to_come, (1 - off, 1.0, 1 + off), strict=True)]
    ends = [now + timedelta(seconds=each / devices) for each in seconds]
    return Forecast(
        examples=_range([spent.examples + each for each in to_come]),
        gpu_hours=_range([(spent.seconds + each) / 3600 for each in seconds]),
        usd=_range([spent.usd + each * usd_per_second for each in seconds]),
        earliest=ends[0],
        ends_at=ends[1],
        latest=ends[2],
    )


def capped(found: Forecast, limits: Limits, started_at: datetime | None) -> Forecast:
    """No more than each cap allows."""
    end = limits.end(started_at)
    hours = _at_most(found.gpu_hours, limits.max_gpu_hours)
    usd = _at_most(found.usd, limits.max_cost_usd)
    examples = _at_most(found.examples, None if limits.max_examples is None else float(limits.max_examples))
    ends = [found.earliest, found.ends_at, found.latest]
    if end is not None:
        ends = [min(each, end) for each in ends]
    return Forecast(examples=examples, gpu_hours=hours, usd=usd, earliest=ends[0], ends_at=ends[1], latest=ends[2])


def _uncertainty(paces: Sequence[float]) -> float:
    """Two standard errors of the mean pace, relative to it."""
    if len(paces) < 3:
        return _UNKNOWN_PACE
    return min(_UNKNOWN_PACE, 2 * stdev(paces) / fmean(paces) / sqrt(len(paces)))


def _range(values: Sequence[float]) -> Range:
    low, expected, high = values
    return Range(low=low, expected=expected, high=high)


def _at_most(found: Range, cap: float | None) -> Range:
    if cap is None:
        return found
    return Range(low=min(found.low, cap), expected=min(found.expected, cap), high=min(found.high, cap))
