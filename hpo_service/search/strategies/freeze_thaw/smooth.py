"""The mean of a Gaussian process over configurations alone, fast at many of them."""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from hpo_service.search.strategies.freeze_thaw.gaussian_process import Array, Indices, Kernel, Sites

_JITTER = 1e-5
_GRID = np.linspace(0, 1, 257)


class Smooth:
    """`values` [n] at `sites` as a function of features. They are standardized: `mean` and `scale` lead back.

    The kernel's parts are added up apart: main effects are sums of functions of one feature, tabulated once; for the
    interactions all distances come from one matrix product.
    """

    def __init__(self, kernel: Kernel, sites: Sites, values: Array, *, mean: float, scale: float) -> None:
        dimensions = len(kernel.theta) - 6
        lengths = np.exp(kernel.theta[:dimensions])[kernel.groups]
        self._mean, self._scale, self._lengths = mean, scale, lengths
        self._interaction, _, _, _, _, main = np.exp(kernel.theta[dimensions:])
        covariance = kernel.between(sites, sites)
        covariance[np.diag_indices(len(sites))] += kernel.noise + _JITTER
        self._weights = cho_solve(cho_factor(covariance, lower=True), values)
        self._scaled = sites.features / lengths
        self._single = _centred(self._scaled, lengths)
        self._square = (self._single**2).sum(axis=1)
        columns = (np.flatnonzero(kernel.groups == group) for group in range(dimensions))
        self._effects = [_Effect(each, self._scaled, lengths, self._weights * main / dimensions) for each in columns]

    def __call__(self, features: Array) -> Array:
        """[n] at features [n, features]."""
        wanted = _centred(features / self._lengths, self._lengths)
        squared = self._square[None] + (wanted**2).sum(axis=1)[:, None] - 2 * wanted @ self._single.T
        root = np.sqrt(5 * np.maximum(squared, 0))
        matern = (1 + root * (1 + root / 3)) * np.exp(-root)
        found: Array = self._interaction * (matern @ self._weights)
        for effect in self._effects:
            found = found + effect(features)
        return self._mean + self._scale * found


def _centred(scaled: Array, lengths: Array) -> NDArray[np.float32]:
    """Half the precision in a third of the time: exponentials of all pairs are most of the work."""
    return (scaled - 0.5 / lengths).astype(np.float32)


class _Effect:
    """What one dimension contributes by itself. An ordered one is a single feature between 0 and 1."""

    def __init__(self, columns: Indices, scaled: Array, lengths: Array, weights: Array) -> None:
        self._columns, self._lengths, self._weights = columns, lengths[columns], weights
        self._known = scaled[:, columns]
        self._tabulated = self._direct(_GRID[:, None]) if len(columns) == 1 else None

    def __call__(self, features: Array) -> Array:
        chosen = features[:, self._columns]
        if self._tabulated is None:
            few, which = np.unique(chosen, axis=0, return_inverse=True)
            return self._direct(few)[which.reshape(-1)]
        found: Array = np.interp(chosen[:, 0], _GRID, self._tabulated)
        return found

    def _direct(self, features: Array) -> Array:
        squared = (((features / self._lengths)[:, None] - self._known[None]) ** 2).sum(axis=-1)
        found: Array = (1 / (1 + squared)) @ self._weights
        return found
