"""How sure the difference between two configurations is that were trained with the same few seeds. Pure.

The loss of candidate c with seed s on fold j of the evaluation examples is taken as

    mean of c  +  seed s  +  c x s  +  c x j  +  c x s x j.

What two candidates share (the luck of a seed, hard examples) cancels in their difference d, which is averaged over the
n seeds that both were trained with. Its variance is that of a crossed design with seeds and folds as random effects,

    Var(d) = S_seed / n  +  S_fold / J  -  S_rest / (n J),        never below the larger of the first two terms,

with S_fold the variance over J folds of the differences averaged over seeds, and S_rest the interaction of seeds and
folds, which the two others both contain (Searle, Casella and McCulloch, Variance Components, 1992, ch. 4; the same
formula compares readers and cases in Hillis, Statistics in Medicine 26, 2007). With one seed S_rest is unknown and
taken as 0, which only widens the interval.

S_seed, the variance of d over seeds, is the hard part with two or three seeds. It is pooled over all candidates (the
residual of the additive model candidate + seed, a randomized block design) and shrunk towards a prior as in the
moderated t test (Smyth, Statistical Applications in Genetics and Molecular Biology 3, 2004): a relative standard
deviation of PRIOR_SPREAD with PRIOR_DEGREES degrees of freedom. So one seed already gives an interval, a wide one.
The interval is the t interval with Satterthwaite's degrees of freedom.

Who looks again and again, at several pairs, is misled sooner or later. So the interval's error is divided by how many
comparisons there may be (Bonferroni; over the looks of a race it is the alpha spending of Lan and DeMets, Biometrika
70, 1983, with an equal part for every look, without use of their correlation, as in the races of Maron and Moore, NIPS
6, 1993): all of them hold at once with the probability LEVEL.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

LEVEL = 0.95
"""Of all comparisons together."""
PRIOR_SPREAD = 0.005
"""Runs that differ in nothing but the seed are expected to differ by about so much of their loss."""
PRIOR_DEGREES = 2.0

Losses = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a candidate reached at its end with one seed: the loss on all evaluation examples and on their folds."""

    candidate: int
    seed: int
    loss: float
    folds: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Loss of `candidate` minus loss of `other` over the `seeds` that both have: `mean` plus or minus `half_width`."""

    candidate: int
    other: int
    seeds: int
    mean: float
    half_width: float

    @property
    def separated(self) -> bool:
        """Whether the interval leaves no doubt which of the two is lower."""
        return abs(self.mean) > self.half_width


def difference(results: Sequence[RunResult], candidate: int, other: int, *, comparisons: int = 1) -> Difference | None:
    """The paired interval, one of so many; None if the two share no seed. All `results` say how much seeds matter.

    The order of the results does not matter, not even for the last digit.
    """
    results = sorted(results, key=lambda result: (result.candidate, result.seed))
    ours, theirs = _by_seed(results, candidate), _by_seed(results, other)
    seeds = [seed for seed in ours if seed in theirs]
    if not seeds:
        return None
    mean = math.fsum(ours[seed].loss - theirs[seed].loss for seed in seeds) / len(seeds)
    spread, degrees = seed_variance(results)
    by_seed = 2 * spread / len(seeds)
    folds = _fold_differences([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds])
    by_fold, rest = _fold_terms(folds)
    variance = max(by_seed, by_fold, by_seed + by_fold - rest)
    shares = by_seed**2 / degrees + (by_fold**2 / (folds.shape[1] - 1) if folds.size else 0.0)
    error = (1 - LEVEL) / 2 / comparisons
    quantile = float(stdtrit(variance**2 / shares, 1 - error)) if shares else 0.0
    return Difference(
        candidate=candidate, other=other, seeds=len(seeds), mean=mean, half_width=quantile * math.sqrt(variance)
    )


def seed_variance(results: Sequence[RunResult]) -> tuple[float, float]:
    """The variance of one candidate's loss over seeds beyond what all candidates share, and its degrees of freedom."""
    residual, degrees = _additive_residual(results)
    scale = PRIOR_SPREAD * abs(math.fsum(result.loss for result in results) / len(results))
    total = PRIOR_DEGREES + degrees
    return (PRIOR_DEGREES * scale**2 + residual) / total, total


def _additive_residual(results: Sequence[RunResult]) -> tuple[float, int]:
    """Sum of squares that candidate + seed leaves, and its degrees of freedom."""
    candidates = sorted({result.candidate for result in results})
    seeds = sorted({result.seed for result in results})
    design = np.zeros((len(results), len(candidates) + len(seeds)))
    for row, result in enumerate(results):
        design[row, candidates.index(result.candidate)] = 1.0
        design[row, len(candidates) + seeds.index(result.seed)] = 1.0
    losses = np.array([result.loss for result in results])
    solution, _, rank, _ = np.linalg.lstsq(design, losses, rcond=None)
    degrees = len(results) - int(rank)
    return (float(np.sum((losses - design @ solution) ** 2)) if degrees else 0.0), degrees


def _fold_differences(ours: Sequence[RunResult], theirs: Sequence[RunResult]) -> Losses:
    """[seeds, folds], empty if any run does not know its folds or there is one fold only."""
    counts = {len(result.folds) for result in (*ours, *theirs)}
    if len(counts) != 1 or min(counts) < 2:
        return np.zeros((len(ours), 0))
    found: Losses = np.array([one.folds for one in ours]) - np.array([one.folds for one in theirs])
    return found


def _fold_terms(folds: Losses) -> tuple[float, float]:
    """S_fold / J and S_rest / (n J)."""
    seeds, count = folds.shape
    if not count:
        return 0.0, 0.0
    means = folds.mean(axis=0)
    by_fold = float(means.var(ddof=1)) / count
    if seeds < 2:
        return by_fold, 0.0
    rest = folds - means - folds.mean(axis=1, keepdims=True) + folds.mean()
    return by_fold, float(np.sum(rest**2)) / ((seeds - 1) * (count - 1)) / (seeds * count)


def _by_seed(results: Sequence[RunResult], candidate: int) -> dict[int, RunResult]:
    return {result.seed: result for result in results if result.candidate == candidate}
