"""Expected improvement, what a slice costs, and whether a configuration can be trained at all."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.special import ndtr

from hpo_service.search.strategies.freeze_thaw.gaussian_process import Array

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
_FAR_OUT = -8.0
_RIDGE = 0.3
_WIDEST_COST = 3.0
_FAILURE_LENGTH = 0.25
_FAILURE_WEIGHT = 4.0
_CLEARLY_MORE = 1.05
_NO_CHANCE = 1e-9
#: a configuration with less is not proposed
LEAST_CHANCE = 0.35


def log_expected_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """Logarithm of E[max(0, best - y)] of y ~ N(mean, deviation^2), stable far from the best (Ament et al. 2023)."""
    z = (best - mean) / deviation
    near = np.maximum(z, _FAR_OUT)
    direct = np.log(np.exp(-0.5 * near**2 - _HALF_LOG_TWO_PI) + near * ndtr(near))
    tail = -0.5 * z**2 - _HALF_LOG_TWO_PI - 2 * np.log(np.maximum(-z, 1.0))
    found: Array = np.where(z > _FAR_OUT, direct, tail) + np.log(deviation)
    return found


class CostModel:
    """Cost of an example of any configuration: ridge regression of its logarithm on quadratic features."""

    def __init__(self, features: Array, costs: Array) -> None:
        """`costs` [n] of started trials at `features` [n, features]; without any, all cost the same."""
        self._mean, self._weights = 0.0, np.zeros(2 * features.shape[1] + 1)
        if len(costs):
            terms, logs = _quadratic(features), np.log(np.maximum(costs, 1e-300))
            self._mean = float(logs.mean())
            ridge = terms.T @ terms + _RIDGE * np.eye(terms.shape[1])
            self._weights = np.linalg.solve(ridge, terms.T @ (logs - self._mean))

    @property
    def typical(self) -> float:
        """Cost of an example of a middling trial, in the unit of the costs."""
        return math.exp(self._mean)

    def relative(self, features: Array) -> Array:
        """Cost of an example [n] in multiples of `typical`."""
        found: Array = np.exp(np.clip(_quadratic(features) @ self._weights, -_WIDEST_COST, _WIDEST_COST))
        return found


def _quadratic(features: Array) -> Array:
    return np.hstack([np.ones((len(features), 1)), features, features**2])


class MemoryLimit:
    """Which configurations need more memory than the least that ran out of it, by the trainer's predicted peaks."""

    def __init__(self, features: Array, peaks_bytes: Array, failed: NDArray[np.bool_]) -> None:
        """`peaks_bytes` [n] of trials at `features` [n, features]; `failed` [n] is true where memory ran out."""
        self._peak = CostModel(features, peaks_bytes)
        self._limit = float(np.min(self._peak.relative(features[failed]), initial=np.inf))

    def exceeded(self, features: Array) -> NDArray[np.bool_]:
        """[n]; what needs about as much as a trial that failed is left to what happened nearby."""
        found: NDArray[np.bool_] = self._peak.relative(features) > _CLEARLY_MORE * self._limit
        return found


class Feasibility:
    """Chance that a configuration neither diverges nor runs out of memory: what trials nearby did, by kernel."""

    def __init__(self, features: Array, failed: Array, memory: MemoryLimit) -> None:
        """`failed` [n] is 1 where a trial failed because of its configuration."""
        self._features, self._failed, self._memory = features, failed, memory

    def chance(self, features: Array) -> Array:
        """[n], 1 as long as nothing has failed; a failure counts as several trials that went well."""
        if not self._failed.any():
            return np.ones(len(features))
        weights = np.exp(-0.5 * cdist(features, self._features, "sqeuclidean") / _FAILURE_LENGTH**2)
        failures = _FAILURE_WEIGHT * (weights @ self._failed)
        successes = weights @ (1 - self._failed) + 1
        found: Array = successes / (successes + failures)
        return np.where(self._memory.exceeded(features), _NO_CHANCE, found)
