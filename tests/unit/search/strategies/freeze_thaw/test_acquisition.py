"""Expected improvement, cost and feasibility."""

import math

import numpy as np
import pytest
from scipy.integrate import quad

from hpo_service.search.strategies.freeze_thaw.acquisition import (
    LEAST_CHANCE,
    CostModel,
    Feasibility,
    MemoryLimit,
    log_expected_improvement,
)


def integrated(z: float) -> float:
    """Logarithm of the integral of t times the density at t below the best, its largest factor taken out."""
    found, _ = quad(lambda t: t * math.exp(z * t - t * t / 2 - max(0.0, z) ** 2 / 2), 0, np.inf, epsabs=0, epsrel=1e-10)
    return math.log(found) + max(0.0, z) ** 2 / 2 - z**2 / 2 - math.log(2 * math.pi) / 2


@pytest.mark.parametrize("z", [4.0, 1.0, 0.0, -1.0, -3.0, -6.0, -7.9, -8.1, -12.0, -30.0])
@pytest.mark.parametrize("deviation", [1.0, 0.01])
def test_log_expected_improvement_is_the_integral(z: float, deviation: float) -> None:
    mean = np.array([2.0 - z * deviation])
    (found,) = log_expected_improvement(mean, np.array([deviation]), 2.0)
    assert found == pytest.approx(integrated(z) + math.log(deviation), abs=0.05 if z < -8 else 1e-3)


def test_it_stays_finite_and_falls_however_far() -> None:
    means = np.linspace(0, 1000, 4001)
    found = log_expected_improvement(means, np.ones(4001), 0.0)
    assert np.all(np.isfinite(found))
    assert np.all(np.diff(found) < 0)


def test_uncertainty_is_worth_something() -> None:
    found = log_expected_improvement(np.array([1.0, 1.0]), np.array([0.1, 0.5]), 0.5)
    assert found[1] > found[0]


def test_cost_follows_what_was_measured() -> None:
    features = np.random.default_rng(0).random((60, 2))
    model = CostModel(features, 5 * np.exp(1.5 * features[:, 0]))
    cheap, dear = model.relative(np.array([[0.1, 0.5], [0.9, 0.5]]))
    assert dear / cheap == pytest.approx(math.exp(1.2), rel=0.1)
    assert model.typical == pytest.approx(5 * math.exp(0.75), rel=0.1)


def test_without_measurements_all_cost_the_same() -> None:
    model = CostModel(np.zeros((0, 3)), np.zeros(0))
    assert model.relative(np.random.default_rng(0).random((4, 3))).tolist() == [1, 1, 1, 1]


def test_far_from_what_was_measured_cost_is_bounded() -> None:
    model = CostModel(np.array([[0.0], [0.01], [0.02]]), np.array([1.0, 10.0, 100.0]))
    assert model.relative(np.array([[1.0], [1e3]])).max() <= math.exp(3) + 1e-9


def no_limit(dimensions: int) -> MemoryLimit:
    return MemoryLimit(np.zeros((0, dimensions)), np.zeros(0), np.zeros(0, dtype=np.bool_))


def test_near_a_failure_nothing_is_proposed_and_far_from_it_everything() -> None:
    known = np.array([[0.9, 0.9], [0.1, 0.1], [0.2, 0.3]])
    model = Feasibility(known, np.array([1.0, 0.0, 0.0]), no_limit(2))
    near, far = model.chance(np.array([[0.88, 0.9], [0.1, 0.2]]))
    assert near < LEAST_CHANCE
    assert far > 0.8


def test_successes_nearby_outweigh_one_failure() -> None:
    place = np.array([[0.5, 0.5]])
    chances = [
        Feasibility(np.repeat(place, successes + 1, axis=0), np.array([1.0, *[0.0] * successes]), no_limit(2)).chance(
            place
        )[0]
        for successes in (0, 3, 10)
    ]
    assert chances[0] < LEAST_CHANCE < chances[1] < chances[2]


def test_without_failures_everything_can_be_trained() -> None:
    assert Feasibility(np.zeros((2, 1)), np.zeros(2), no_limit(1)).chance(np.ones((3, 1))).tolist() == [1, 1, 1]


def test_what_needs_more_memory_than_a_trial_that_ran_out_of_it_is_not_proposed_however_far_away() -> None:
    ranks, batches = np.meshgrid(np.linspace(0, 0.6, 5), np.linspace(0, 1, 3))
    known = np.stack([ranks.ravel(), batches.ravel()], axis=1)
    peaks = 1e9 * np.exp(2 * known[:, 0])
    burst = np.isclose(known[:, 0], 0.6) & np.isclose(known[:, 1], 0.0)
    model = Feasibility(known, burst.astype(float), MemoryLimit(known, peaks, burst))
    far_and_larger, far_and_smaller = model.chance(np.array([[1.0, 1.0], [0.2, 1.0]]))
    assert far_and_larger < LEAST_CHANCE
    assert far_and_smaller > 0.8


def test_with_equal_memory_running_out_of_it_says_nothing_of_others() -> None:
    known = np.array([[0.0], [0.5], [1.0]])
    burst = np.array([True, False, False])
    model = Feasibility(known, burst.astype(float), MemoryLimit(known, np.full(3, 1e9), burst))
    assert model.chance(np.array([[0.9]]))[0] > 0.8
