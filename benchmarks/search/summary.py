"""What the rows say: mean regret by bill with standard errors, and speed-ups.

A speed-up over a peer is the peer's whole bill by the bill at which our mean regret reaches the peer's final mean
regret; where it is never reached, the budget stands for that bill. Means of several tasks are geometric.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmarks.search.cells import Row
from benchmarks.search.tables import Array, Table

HIT = 0.1
HIT_BILL = 32.0
RESAMPLES = 100


@dataclass(frozen=True, eq=False)
class Runs:
    """The runs of one strategy on one task with one number of workers, a seed each, cut at a budget in R."""

    table: Table
    rows: Sequence[Row]
    budget: float

    def regrets(self, bills: Array) -> Array:
        """Of every seed at every bill [seeds, bills], at most the budget. A run without a result counts as 1."""
        bills = np.minimum(bills, self.budget)
        return np.array([self._regrets(row)[np.searchsorted(_bills(row), bills, side="right")] for row in self.rows])

    @cached_property
    def changes(self) -> Array:
        """The bills at which any run improved."""
        return np.unique([bill for row in self.rows for bill, _ in row.history if bill <= self.budget])

    @cached_property
    def course(self) -> Array:
        """Regrets at the changes [seeds, changes]."""
        return self.regrets(self.changes)

    @cached_property
    def bills(self) -> Array:
        """What every run cost in all."""
        return np.array([min(row.bill, self.budget) for row in self.rows])

    def reaches(self, regret: float, course: Array | None = None) -> float | None:
        """The bill at which the mean regret is as low, or None. `course` replaces the runs' own."""
        mean = (self.course if course is None else course).mean(axis=0)
        reached = np.flatnonzero(mean <= regret + 1e-12)
        return float(self.changes[reached[0]]) if len(reached) else None

    def _regrets(self, row: Row) -> Array:
        """Before the first result and after each improvement."""
        return np.array([1.0, *(self.table.regret(loss) for _, loss in row.history)])


def _bills(row: Row) -> list[float]:
    return [bill for bill, _ in row.history]


def speedup(ours: Runs, peer: Runs) -> float:
    """On one task."""
    matched = ours.reaches(float(peer.course[:, -1].mean()))
    return float(peer.bills.mean()) / (ours.budget if matched is None else matched)


def resampled_speedups(ours: Runs, peer: Runs, random: np.random.Generator) -> Array:
    """The speed-up for seeds drawn with replacement, to see how far it hangs on them."""
    found = []
    for _ in range(RESAMPLES):
        mine, theirs = (random.integers(len(runs.rows), size=len(runs.rows)) for runs in (ours, peer))
        matched = ours.reaches(float(peer.course[theirs, -1].mean()), ours.course[mine])
        found.append(float(peer.bills[theirs].mean()) / (ours.budget if matched is None else matched))
    return np.array(found)


@dataclass(frozen=True, kw_only=True)
class Speedup:
    """Over several tasks; the true value lies within `low` and `high` (one standard error of the seeds)."""

    geometric_mean: float
    low: float
    high: float


def overall_speedup(ours: Sequence[Runs], peer: Sequence[Runs]) -> Speedup:
    """Of two strategies on the same tasks in the same order."""
    pairs, random = list(zip(ours, peer, strict=True)), np.random.default_rng(0)
    mean = float(np.mean([np.log(speedup(*pair)) for pair in pairs]))
    error = float(np.mean([np.log(resampled_speedups(*pair, random)) for pair in pairs], axis=0).std())
    return Speedup(
        geometric_mean=float(np.exp(mean)), low=float(np.exp(mean - error)), high=float(np.exp(mean + error))
    )


def mean_regrets(tasks: Sequence[Runs], bills: Array) -> tuple[Array, Array]:
    """Over tasks of equal weight, with the standard error that comes from the seeds [bills] each.

    One seed has no standard error: it is not a number.
    """
    means, errors = [], []
    for runs in tasks:
        regrets = runs.regrets(bills)
        means.append(regrets.mean(axis=0))
        spread = regrets.std(axis=0, ddof=1) if len(regrets) > 1 else np.full(len(bills), np.nan)
        errors.append(spread / np.sqrt(len(regrets)))
    return np.mean(means, axis=0), np.sqrt(np.sum(np.square(errors), axis=0)) / len(tasks)


def hit_rate(tasks: Sequence[Runs]) -> float:
    """Share of runs with a regret of at most 0.1 for a bill of 32 R."""
    return float(np.mean([runs.regrets(np.array([HIT_BILL])).ravel() <= HIT for runs in tasks]))
