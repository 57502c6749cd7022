"""One exact Gaussian process over (configuration, log examples, trial).

    cov = [s1 Matern52(x, x') + s3 mean_j Cauchy(x_j, x'_j)] exp(-|t - t'| / l1) + s2 [same trial] exp(-|t - t'| / l2)

with a lengthscale for every dimension j: interactions, main effects, and what the configuration does not explain of a
trial (after Swersky, Snoek, Adams 2014, "Freeze-Thaw Bayesian Optimization", with an Ornstein-Uhlenbeck process in log
time for their exponential kernel). Hyperparameters are those of highest posterior density under log-normal priors.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

_JITTER = 1e-5
_LENGTHSCALE = (0.5, 0.9)
#: median and log-standard deviation of s1, s2, l1, l2, noise, s3
_PRIORS = ((1.0, 0.7), (0.15, 0.8), (3.0, 0.7), (2.0, 0.7), (0.003, 1.2), (0.5, 0.8))
_FIRST_STEPS, _LATER_STEPS = 25, 12
_WIDEST = 3.0


@dataclass(frozen=True, kw_only=True)
class Sites:
    """Where a loss is known or wanted: `features` [n, features], `times` [n] log examples, `trials` [n].

    Sites of the same trial share what the configuration does not explain; a new configuration needs a number of its
    own.
    """

    features: Array
    times: Array
    trials: Indices

    def __len__(self) -> int:
        return len(self.times)

    def joined(self, other: "Sites") -> "Sites":
        """These sites, then the others."""
        return Sites(
            features=np.concatenate([self.features, other.features]),
            times=np.concatenate([self.times, other.times]),
            trials=np.concatenate([self.trials, other.trials]),
        )


@dataclass(frozen=True)
class Kernel:
    """`theta` holds logarithms: a lengthscale a dimension, then s1, s2, l1, l2, noise, s3. `groups` as in `Cube`."""

    theta: Array
    groups: Indices

    @property
    def noise(self) -> float:
        """Variance of an observation beyond what is known of it."""
        return float(np.exp(self.theta[-2]))

    @property
    def variance(self) -> float:
        """Prior variance at any site."""
        s1, s2, _, _, _, s3 = np.exp(self.theta[-6:])
        return float(s1 + s2 + s3)

    def between(self, one: Sites, other: Sites) -> Array:
        """Covariances [n, m] without noise."""
        dimensions = len(self.theta) - 6
        s1, s2, l1, l2, _, s3 = np.exp(self.theta[dimensions:])
        lengths = np.exp(self.theta[:dimensions])[self.groups]
        a, b = one.features / lengths, other.features / lengths
        total = np.zeros((len(one), len(other)))
        main = np.zeros_like(total)
        for dimension in range(dimensions):
            part = np.zeros_like(total)
            for column in np.flatnonzero(self.groups == dimension):
                part += (a[:, column, None] - b[None, :, column]) ** 2
            total += part
            main += 1 / (1 + part)
        root = np.sqrt(5 * total)
        gap = np.abs(one.times[:, None] - other.times[None])
        shared = s1 * (1 + root + root**2 / 3) * np.exp(-root) + s3 * main / dimensions
        same = one.trials[:, None] == other.trials[None]
        covariance: Array = shared * np.exp(-gap / l1) + s2 * same * np.exp(-gap / l2)
        return covariance


class Posterior:
    """A kernel conditioned on `values` [n] at `sites`, whose noise variances beyond the kernel's are `noise` [n]."""

    def __init__(self, kernel: Kernel, sites: Sites, values: Array, noise: Array) -> None:
        self.kernel, self._sites, self._values, self._noise = kernel, sites, values, noise
        covariance = kernel.between(sites, sites)
        covariance[np.diag_indices(len(sites))] += kernel.noise + noise + _JITTER
        self._root = cholesky(covariance, lower=True, check_finite=False, overwrite_a=True)
        self._weights = self._solve(self._solve(values), transposed=True)

    def predict(self, sites: Sites) -> tuple[Array, Array]:
        """Mean [m] and standard deviation [m] of the values without noise."""
        covariance = self.kernel.between(sites, self._sites)
        explained = self._solve(covariance.T)
        variance = self.kernel.variance - (explained**2).sum(axis=0)
        return covariance @ self._weights, np.sqrt(np.maximum(variance, 1e-8))

    def believing(self, sites: Sites) -> "Posterior":
        """With its own means taken as observed at `sites` (kriging believer): nobody needs to look there again."""
        mean, _ = self.predict(sites)
        return Posterior(
            self.kernel,
            self._sites.joined(sites),
            np.concatenate([self._values, mean]),
            np.concatenate([self._noise, np.zeros(len(sites))]),
        )

    def _solve(self, right: Array, *, transposed: bool = False) -> Array:
        solved: Array = solve_triangular(
            self._root, right, lower=True, trans=1 if transposed else 0, check_finite=False
        )
        return solved


def fit(sites: Sites, values: Array, noise: Array, groups: Indices, start: Array | None) -> Kernel:
    """The kernel of highest posterior density, searched for from `start`, else from the priors' medians."""
    dimensions = int(groups.max()) + 1
    medians, deviations = _priors(dimensions)
    density = _Density(sites, values, noise, groups, medians, deviations)
    found = minimize(
        density,
        medians if start is None else start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _FIRST_STEPS if start is None else _LATER_STEPS},
        bounds=list(zip(medians - _WIDEST * deviations, medians + _WIDEST * deviations, strict=True)),
    )
    return Kernel(np.asarray(found.x, dtype=np.float64), groups)


def _priors(dimensions: int) -> tuple[Array, Array]:
    pairs = np.array([_LENGTHSCALE] * dimensions + list(_PRIORS))
    return np.log(pairs[:, 0]), pairs[:, 1]


class _Density:
    """Negative log posterior density of `theta`, and its gradient."""

    def __init__(
        self, sites: Sites, values: Array, noise: Array, groups: Indices, medians: Array, deviations: Array
    ) -> None:
        self._values, self._noise = values, noise
        self._medians, self._deviations = medians, deviations
        squared = (sites.features.T[:, :, None] - sites.features.T[:, None, :]) ** 2
        self._squared = np.stack([squared[groups == group].sum(axis=0) for group in range(int(groups.max()) + 1)])
        self._gap = np.abs(sites.times[:, None] - sites.times[None])
        self._same = (sites.trials[:, None] == sites.trials[None]).astype(np.float64)

    def __call__(self, theta: Array) -> tuple[float, Array]:
        dimensions, count = len(self._squared), len(self._values)
        s1, s2, l1, l2, noise, s3 = np.exp(theta[dimensions:])
        scaled = self._squared * np.exp(-2 * theta[:dimensions])[:, None, None]
        root = np.sqrt(5 * scaled.sum(axis=0))
        fading, decay = np.exp(-root), np.exp(-self._gap / l1)
        matern = s1 * (1 + root + root**2 / 3) * fading * decay
        near = 1 / (1 + scaled)
        main = s3 * near.mean(axis=0) * decay
        own = s2 * self._same * np.exp(-self._gap / l2)
        covariance = matern + main + own
        covariance[np.diag_indices(count)] += noise + self._noise + _JITTER
        distance = (theta - self._medians) / self._deviations
        try:
            lower = cholesky(covariance, lower=True, check_finite=False)
        except np.linalg.LinAlgError:
            return 1e6, np.zeros_like(theta)
        half = solve_triangular(lower, np.eye(count), lower=True, check_finite=False)
        inverse = half.T @ half
        weights = inverse @ self._values
        pull = inverse - np.outer(weights, weights)
        by_length = pull * (s1 * 5 / 3 * (1 + root) * fading * decay)
        by_main = pull * decay * (2 * s3 / dimensions)
        lengths = (scaled * (by_length + by_main * near**2)).sum(axis=(1, 2))
        others = [
            (pull * matern).sum(),
            (pull * own).sum(),
            (pull * (matern + main) * self._gap).sum() / l1,
            (pull * own * self._gap).sum() / l2,
            noise * np.trace(pull),
            (pull * main).sum(),
        ]
        gradient = 0.5 * np.concatenate([lengths, others]) + distance / self._deviations
        value = 0.5 * self._values @ weights + np.log(np.diag(lower)).sum() + 0.5 * distance @ distance
        return float(value), gradient
