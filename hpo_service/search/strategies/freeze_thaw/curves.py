"""The losses of a study as a Gaussian process takes them: logarithms, the worst squashed, a common curve removed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpo_service.search.strategies.base import TrialView
from hpo_service.search.strategies.freeze_thaw.gaussian_process import Array, Indices

_SMALLEST_LOSS = 1e-6
#: of a trial's own level towards that of all; it only decides where the first rung lies
_SHRINKAGE = 0.02
_FADING_SLOPE = 0.6


@dataclass(frozen=True, kw_only=True)
class Squash:
    """Losses above the `quantile` of the trials' first losses are pressed into `width` (in log loss) above it.

    A model then spends nothing on telling bad trials from worse ones.
    """

    quantile: float
    width: float


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Observations [n] of trials that have a loss.

    `values` are standardized: (log loss - `common` curve) / `scale`; `noise` are variances of the same unit that are
    known from the evaluation examples. `rows` says which of the trials handed in, `rungs` [n] which of `ladder`.
    `ladder` [rungs] holds all rungs in examples, `common` [rungs] the log loss of a middling trial there.
    """

    rows: Indices
    rungs: Indices
    values: Array
    noise: Array
    ladder: Array
    common: Array
    scale: float
    best: float  #: lowest log loss at any rung

    def log_loss(self, value: Array, examples: Array) -> Array:
        """Log losses of standardized values after so many examples."""
        return self.common_at(examples) + self.scale * value

    def common_at(self, examples: Array) -> Array:
        """The common curve between rungs."""
        found: Array = np.interp(np.log(examples), np.log(self.ladder), self.common)
        return found

    def kept(self, most: int, random: np.random.Generator) -> Indices:
        """So many observations: all rungs of the best trials, the last rung of the others, the best values first."""
        if len(self.values) <= most:
            return np.arange(len(self.values))
        last = np.zeros(int(self.rows.max()) + 1, dtype=np.intp)
        last[self.rows] = np.arange(len(self.rows))
        seen = np.unique(self.rows)
        good = seen[np.argsort(self.values[last[seen]], kind="stable")][: max(20, most // 8)]
        chosen = np.flatnonzero(np.isin(self.rows, good) | (last[self.rows] == np.arange(len(self.rows))))
        if len(chosen) > most:
            by_value = chosen[np.argsort(self.values[chosen], kind="stable")]
            others = random.permutation(by_value[most - most // 6 :])[: most // 6]
            chosen = np.sort(np.concatenate([by_value[: most - most // 6], others]))
        return chosen


def read(trials: Sequence[TrialView], study_ladder: Sequence[int], squash: Squash) -> Curves:
    """All losses of `trials`, at least one. `study_ladder` are rungs that predictions are made for as well."""
    triples = [(row, rung, loss) for row, trial in enumerate(trials) for rung, loss in sorted(trial.losses.items())]
    examples = sorted({*study_ladder, *(rung for trial in trials for rung in trial.ladder), *(t[1] for t in triples)})
    place = {rung: index for index, rung in enumerate(examples)}
    rows = np.array([row for row, _, _ in triples], dtype=np.intp)
    rungs = np.array([place[rung] for _, rung, _ in triples], dtype=np.intp)
    logs = np.log(np.maximum([loss for _, _, loss in triples], _SMALLEST_LOSS))
    first = np.unique(rows, return_index=True)[1]
    cap = np.quantile(logs[first], squash.quantile)
    pressed = np.where(logs > cap, cap + squash.width * np.tanh((logs - cap) / squash.width), logs)
    common = _common_curve(pressed, rungs, rows, np.log(examples))
    scale = max(1e-6, float(np.std((pressed - common[rungs])[first])))
    return Curves(
        rows=rows,
        rungs=rungs,
        values=(pressed - common[rungs]) / scale,
        noise=_known_noise(trials, triples) / scale**2,
        ladder=np.array(examples, dtype=np.float64),
        common=common,
        scale=scale,
        best=float(logs.min()),
    )


def _common_curve(values: Array, rungs: Indices, rows: Indices, times: Array) -> Array:
    """Least squares of value = rung + trial: how far trials fall from rung to rung, whoever was let go on.

    Good trials alone reach late rungs; means by rung would take their being good for the curve's fall. Where no trial
    has been yet the curve goes on with the last slope, fading.
    """
    seen, place = np.unique(rungs, return_inverse=True)
    taken = np.zeros((int(rows.max()) + 1, len(seen)))
    np.add.at(taken, (rows, place), 1.0)
    weights = taken.sum(axis=1) + _SHRINKAGE
    sums = np.bincount(rows, values, len(taken))
    left = np.diag(taken.sum(axis=0) + 1e-9) - taken.T @ (taken / weights[:, None])
    at_seen = np.linalg.solve(left, np.bincount(place, values, len(seen)) - taken.T @ (sums / weights))
    common: Array = np.interp(times, times[seen], at_seen)
    slope = at_seen[-1] - at_seen[-2] if len(seen) > 1 else 0.0
    for rung in range(seen[-1] + 1, len(times)):
        slope *= _FADING_SLOPE
        common[rung] = common[rung - 1] + min(0.0, slope)
    return common


def _known_noise(trials: Sequence[TrialView], triples: Sequence[tuple[int, int, float]]) -> Array:
    """Variance of each log loss that the choice of evaluation examples explains, relative to the other trials.

    What an example adds to all trials alike says nothing about their order: only how the differences between trials
    spread over the folds counts (the paired comparison of the same examples).
    """
    variances = np.zeros(len(triples))
    by_rung: dict[int, list[int]] = {}
    for index, (row, rung, _) in enumerate(triples):
        if rung in trials[row].fold_losses:
            by_rung.setdefault(rung, []).append(index)
    for rung, indices in by_rung.items():
        folds = np.array([trials[triples[index][0]].fold_losses[rung] for index in indices])
        if len(folds) < 2:
            continue
        own = folds - folds.mean(axis=0)
        spread = own.var(axis=1, ddof=1) / folds.shape[1] * len(folds) / (len(folds) - 1)
        losses = np.array([triples[index][2] for index in indices])
        variances[indices] = spread / np.maximum(losses, _SMALLEST_LOSS) ** 2
    return variances
