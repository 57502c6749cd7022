"""The Gaussian process against its definition."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from hpo_service.search.strategies.freeze_thaw.gaussian_process import (
    Array,
    Kernel,
    Posterior,
    Sites,
    _Density,
    _priors,
    fit,
)

JITTER = 1e-5
GROUPS = np.array([0, 1, 2, 2])


def sites_of(count: int, seed: int = 0) -> Sites:
    random = np.random.default_rng(seed)
    return Sites(
        features=random.random((count, len(GROUPS))),
        times=np.log(random.choice([60.0, 100.0, 170.0], count)),
        trials=random.integers(max(1, count // 2), size=count),
    )


def kernel_of(noise: float = 0.01) -> Kernel:
    medians, _ = _priors(3)
    theta = medians + np.linspace(-0.3, 0.4, len(medians))
    theta[-2] = np.log(noise)
    return Kernel(theta, GROUPS)


def by_hand(kernel: Kernel, one: Sites, other: Sites) -> Array:
    """The covariance as its formula reads, pair by pair."""
    lengths = np.exp(kernel.theta[:3])
    s1, s2, l1, l2, _, s3 = np.exp(kernel.theta[3:])
    found = np.zeros((len(one), len(other)))
    for row, column in np.ndindex(found.shape):
        gaps = (one.features[row] - other.features[column]) / lengths[GROUPS]
        squared = np.array([(gaps[group == GROUPS] ** 2).sum() for group in range(3)])
        distance, time = np.sqrt(5 * squared.sum()), abs(one.times[row] - other.times[column])
        matern = (1 + distance + distance**2 / 3) * np.exp(-distance)
        found[row, column] = (s1 * matern + s3 * np.mean(1 / (1 + squared))) * np.exp(-time / l1)
        found[row, column] += s2 * (one.trials[row] == other.trials[column]) * np.exp(-time / l2)
    return found


def test_the_kernel_is_its_formula() -> None:
    kernel, one, other = kernel_of(), sites_of(7), sites_of(4, seed=1)
    assert kernel.between(one, other) == pytest.approx(by_hand(kernel, one, other))
    assert np.diag(kernel.between(one, one)) == pytest.approx(kernel.variance)


def test_the_gradient_is_that_of_the_density() -> None:
    sites, random = sites_of(15), np.random.default_rng(2)
    medians, deviations = _priors(3)
    density = _Density(sites, random.normal(size=15), random.random(15) * 0.05, GROUPS, medians, deviations)
    for _ in range(3):
        theta = medians + 0.5 * random.normal(size=len(medians)) * deviations
        numeric = approx_fprime(theta, lambda theta: density(theta)[0], 1e-6)
        assert density(theta)[1] == pytest.approx(numeric, rel=1e-3, abs=1e-4)


def test_the_posterior_is_gaussian_conditioning() -> None:
    kernel, known, wanted = kernel_of(), sites_of(6), sites_of(3, seed=1)
    values, noise = np.array([0.3, -1.0, 0.5, 2.0, 0.0, -0.2]), np.array([0.0, 0.1, 0.0, 0.2, 0.0, 0.05])
    covariance = by_hand(kernel, known, known) + np.diag(kernel.noise + noise + JITTER)
    between = by_hand(kernel, wanted, known)
    mean, deviation = Posterior(kernel, known, values, noise).predict(wanted)
    assert mean == pytest.approx(between @ np.linalg.solve(covariance, values))
    expected = kernel.variance - np.diag(between @ np.linalg.solve(covariance, between.T))
    assert deviation == pytest.approx(np.sqrt(expected))


def test_one_observation() -> None:
    kernel, site = kernel_of(noise=0.5), sites_of(1)
    mean, deviation = Posterior(kernel, site, np.array([2.0]), np.array([0.3])).predict(site)
    share = kernel.variance / (kernel.variance + 0.5 + 0.3 + JITTER)
    assert mean == pytest.approx(2 * share)
    assert deviation**2 == pytest.approx(kernel.variance * (1 - share))


def test_noisier_observations_count_less() -> None:
    kernel, site = kernel_of(), sites_of(1)
    means = [Posterior(kernel, site, np.array([1.0]), np.array([noise])).predict(site)[0][0] for noise in (0, 0.5, 5)]
    assert means[0] > means[1] > means[2] > 0


def test_believing_moves_no_mean_and_leaves_less_to_learn() -> None:
    kernel, known, running, anywhere = kernel_of(), sites_of(8), sites_of(3, seed=1), sites_of(20, seed=2)
    posterior = Posterior(kernel, known, np.random.default_rng(0).normal(size=8), np.zeros(8))
    believing = posterior.believing(running)
    for place in (running, anywhere):
        before, after = posterior.predict(place), believing.predict(place)
        assert after[0] == pytest.approx(before[0], abs=1e-9)
        assert np.all(after[1] <= before[1] + 1e-9)
    assert np.all(believing.predict(running)[1] < 0.6 * posterior.predict(running)[1])


def test_fitting_finds_the_dimension_that_matters() -> None:
    random = np.random.default_rng(0)
    features = random.random((60, 2))
    sites = Sites(features=features, times=np.zeros(60), trials=np.arange(60))
    values = np.sin(9 * features[:, 0]) + 0.01 * random.normal(size=60)
    kernel = fit(sites, values, np.zeros(60), np.array([0, 1]), None)
    assert kernel.theta[0] < kernel.theta[1] - 0.5
    held = Sites(features=random.random((50, 2)), times=np.zeros(50), trials=np.arange(100, 150))
    mean, deviation = Posterior(kernel, sites, values, np.zeros(60)).predict(held)
    errors = mean - np.sin(9 * held.features[:, 0])
    assert np.sqrt(np.mean(errors**2)) < 0.25
    assert np.mean(np.abs(errors) < 2 * deviation) > 0.9


def test_fitting_again_from_what_was_found_stays_there() -> None:
    sites, random = sites_of(40), np.random.default_rng(3)
    values = sites.features[:, 0] + 0.1 * random.normal(size=40)
    first = fit(sites, values, np.zeros(40), GROUPS, None)
    second = fit(sites, values, np.zeros(40), GROUPS, first.theta)
    medians, deviations = _priors(3)
    density = _Density(sites, values, np.zeros(40), GROUPS, medians, deviations)
    assert density(second.theta)[0] <= density(first.theta)[0] + 1e-9
    assert density(second.theta)[0] == pytest.approx(density(first.theta)[0], abs=0.1)
