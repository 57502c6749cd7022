"""Earlier studies as knowledge about this one. How well each ranks the new results decides how far it is trusted.

A table of an earlier study is read as a smooth function: the logarithm of the share of its configurations that are
better than this one, by a Gaussian process over configurations. Only ranks are taken over, so the level and the scale
of its losses do not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from hpo_service.search.strategies.freeze_thaw.cube import Cube
from hpo_service.search.strategies.freeze_thaw.gaussian_process import Array, Indices, Sites, fit
from hpo_service.search.strategies.freeze_thaw.smooth import Smooth

_FEWEST = 4
#: so many standard errors of the rank correlation of unrelated rankings are no agreement
_ERRORS_BEFORE_TRUST = 1.0
#: differences among the best two in a hundred do not matter to a score, among the best two in a thousand to a portfolio
_ALIKE, _ALIKE_IN_PORTFOLIO = 0.02, 0.002
_FITTED_ROWS = 120
_READ_ROWS = 200
_BEST_ROWS = 60
_SLOPE_SHRINKAGE = 5.0


@dataclass(frozen=True, kw_only=True)
class PastTable:
    """One earlier `study`: `losses` [n] after the same number of examples at `points` [n, dimensions].

    A point lies where it was trained, also outside of this study's cube. `good` [m, dimensions] are points of the cube
    that may be offered as known to be good. `similarity` is 1 for the same model and data, near 0 for what has little
    to do with this study.
    """

    study: str
    points: Array
    losses: Array
    good: Array
    similarity: float = 1.0


class Past:
    """Earlier studies of the same cube. Reading them takes a moment, once; what is asked afterwards takes little."""

    def __init__(self, cube: Cube, tables: Sequence[PastTable]) -> None:
        self._cube = cube
        self._tables = tuple(table for table in tables if len(table.losses) >= _FEWEST)
        self.studies = tuple(table.study for table in self._tables)
        self.similarities = np.array([table.similarity for table in self._tables], dtype=np.float64)

    def __bool__(self) -> bool:
        return bool(self._tables)

    def ranks(self, features: Array) -> Array:
        """Share of each study's configurations that would be better than those at `features`, [studies, n]."""
        return self._ranks(features, np.ones(len(self._tables), dtype=np.bool_))

    def score_at(self, features: Array, weights: Array) -> Array:
        """`score` of the configurations at `features`; studies without weight are not looked at."""
        trusted = weights > 0
        return self.score(self._ranks(features, trusted), weights[trusted])

    def weights(self, ranks: Array, losses: Array) -> Array:
        """How far to trust each study [studies], by how well it ranks the first `losses` [n]; all 0: not at all.

        A study that agrees no better than chance, or whose ranks are reversed, has no weight. None has any if together
        they rank the losses the wrong way round: the one that seems to agree then does so by chance, where the search
        happens to look.
        """
        count = len(losses)
        if count < _FEWEST:
            return np.zeros(len(ranks))
        own, past = _centred(losses[None])[0], _centred(ranks)
        correlation = past @ own / np.maximum(1e-9, np.sqrt((past**2).sum(axis=1) * (own @ own)))
        if correlation @ self.similarities <= 0:
            return np.zeros(len(ranks))
        trust: Array = np.maximum(0.0, correlation - _ERRORS_BEFORE_TRUST / np.sqrt(count)) ** 2
        return trust * self.similarities

    def score(self, ranks: Array, weights: Array) -> Array:
        """Trusted mean of the logarithms of the ranks [n]; lower is better."""
        found: Array = weights @ np.log(_ALIKE + ranks) / max(1e-12, float(weights.sum()))
        return found

    def top(self, weights: Array, count: int) -> Array:
        """The best configurations of earlier studies by trusted score, [at most `count`, dimensions]."""
        order = np.argsort(self.score(self._best_ranks, weights), kind="stable")
        return self._best[order[:count]]

    def portfolio(self, count: int) -> Array:
        """Configurations that together cover the earlier studies, [at most `count`, dimensions].

        Each next one lowers most the mean over the studies of the best rank so far: the first is good in most, the
        second where the first is not.
        """
        ranks = np.log(_ALIKE_IN_PORTFOLIO + self._best_ranks)
        covered, chosen = np.zeros(len(ranks)), list[int]()
        for _ in range(min(count, len(self._best))):
            gain = self.similarities @ np.minimum(ranks, covered[:, None])
            gain[chosen] = np.inf
            chosen.append(int(gain.argmin()))
            covered = np.minimum(covered, ranks[:, chosen[-1]])
        return self._best[chosen]

    def _ranks(self, features: Array, chosen: NDArray[np.bool_]) -> Array:
        logs = [model(features) for model, wanted in zip(self._models, chosen, strict=True) if wanted]
        return np.clip(np.exp(np.array(logs).reshape(int(chosen.sum()), len(features))) - _ALIKE, 0, 1)

    @cached_property
    def _models(self) -> list[Smooth]:
        return [_smooth(self._cube, table) for table in self._tables]

    @cached_property
    def _best(self) -> Array:
        """What is good in any table; a parameter that is not used there sits in the middle."""
        rows = np.concatenate([table.good[:_BEST_ROWS] for table in self._tables])
        found: Array = np.unique(np.nan_to_num(rows, nan=0.5), axis=0)
        return found

    @cached_property
    def _best_ranks(self) -> Array:
        return self.ranks(self._cube.features(self._best))


@dataclass(frozen=True, kw_only=True)
class Trend:
    """What a trusted past says of any configuration, in the unit of the values that it was fitted to."""

    past: Past
    weights: Array
    centre: float
    slope: float

    def at(self, features: Array) -> Array:
        """[n]."""
        return self.slope * (self.past.score_at(features, self.weights) - self.centre)

    def top(self, count: int) -> Array:
        """As of the past."""
        return self.past.top(self.weights, count)


def trend(past: Past, features: Array, values: Array) -> Trend | None:
    """Shrunk least squares of `values` [n] on the trusted score at `features`; None if no earlier study is trusted.

    The slope is never negative: a past that misleads is ignored, not believed the other way round.
    """
    ranks = past.ranks(features)
    weights = past.weights(ranks, values)
    if not weights.any():
        return None
    score = past.score(ranks, weights)
    centred = score - score.mean()
    slope = float(centred @ values / (centred @ centred + _SLOPE_SHRINKAGE))
    return Trend(past=past, weights=weights, centre=float(score.mean()), slope=slope) if slope > 0 else None


def _smooth(cube: Cube, table: PastTable) -> Smooth:
    logs: Array = np.log(_ALIKE + (rankdata(table.losses) - 1) / (len(table.losses) - 1))
    rows = _representative(logs, _READ_ROWS)
    fitted = rows[_spread(len(rows), _FITTED_ROWS)]
    features, mean, scale = cube.features(table.points), float(logs[rows].mean()), float(logs[rows].std()) + 1e-9
    values = (logs - mean) / scale
    kernel = fit(_sites(features[fitted]), values[fitted], np.zeros(len(fitted)), cube.groups, None)
    return Smooth(kernel, _sites(features[rows]), values[rows], mean=mean, scale=scale)


def _representative(logs: Array, most: int) -> Indices:
    """The best half of so many rows, and as many evenly from the others; best first."""
    order = np.argsort(logs, kind="stable")
    if len(order) <= most:
        return order
    others = order[most // 2 :]
    return np.concatenate([order[: most // 2], others[_spread(len(others), most - most // 2)]])


def _spread(count: int, most: int) -> Indices:
    found: Indices = np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.intp))
    return found


def _sites(features: Array) -> Sites:
    return Sites(features=features, times=np.zeros(len(features)), trials=np.arange(len(features)))


def _centred(rows: Array) -> Array:
    """Ranks within each row [rows, n], around 0."""
    ranked: Array = rankdata(rows, axis=1) - (rows.shape[1] + 1) / 2
    return ranked
