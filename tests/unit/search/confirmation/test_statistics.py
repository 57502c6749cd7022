"""The paired interval: what cancels, what it covers, what one seed can say."""

import numpy as np
import pytest

from hpo_service.search.confirmation.statistics import PRIOR_DEGREES, PRIOR_SPREAD, RunResult, difference, seed_variance

LOSS = 2.0
FOLDS = 32


def results(
    source: np.random.Generator, means: list[float], seeds: int, *, by_seed: float, by_fold: float, rest: float
) -> list[RunResult]:
    """Runs under the model of the module's text; spreads are relative to the loss."""
    shared_seed = source.normal(0, 0.05, seeds)
    shared_fold = source.normal(0, 0.3, FOLDS)
    found = []
    for candidate, mean in enumerate(means):
        own_fold = source.normal(0, by_fold * LOSS, FOLDS)
        for seed in range(seeds):
            base = mean + shared_seed[seed] + source.normal(0, by_seed * LOSS)
            folds = base + shared_fold + own_fold + source.normal(0, rest * LOSS, FOLDS)
            found.append(
                RunResult(candidate=candidate, seed=seed, loss=float(folds.mean()), folds=tuple(folds.tolist()))
            )
    return found


@pytest.mark.parametrize("seeds", [1, 2, 3])
@pytest.mark.parametrize("by_seed", [0.001, 0.005, 0.01])
@pytest.mark.parametrize("by_fold", [0.0, 0.02])
def test_the_interval_covers_the_true_difference(seeds: int, by_seed: float, by_fold: float) -> None:
    """Nominal 95 %; less where seeds matter twice as much as the prior expects, which few seeds cannot show."""
    source = np.random.default_rng(seeds)
    covered = 0
    for _ in range(400):
        found = results(source, [LOSS, LOSS + 0.03, LOSS, LOSS], seeds, by_seed=by_seed, by_fold=by_fold, rest=0.02)
        gap = difference(found, 1, 0)
        assert gap is not None
        covered += abs(gap.mean - 0.03) <= gap.half_width
    assert covered / 400 >= (0.93 if by_seed <= PRIOR_SPREAD else 0.89)


def test_more_seeds_make_it_narrower() -> None:
    source = np.random.default_rng(5)
    widths = []
    for seeds in (1, 2, 3, 5):
        gaps = [
            difference(results(source, [2.0, 2.0, 2.0], seeds, by_seed=0.003, by_fold=0.01, rest=0.01), 0, 1)
            for _ in range(40)
        ]
        widths.append(float(np.mean([gap.half_width for gap in gaps if gap is not None])))
    assert widths == sorted(widths, reverse=True)
    assert widths[2] < widths[0] / 2


def test_what_candidates_share_cancels() -> None:
    """A seed that is hard for both, and hard folds, change neither the difference nor its width."""
    plain = [
        RunResult(candidate=number, seed=seed, loss=2.0 + 0.1 * number + 0.001 * seed, folds=(2.0, 2.1 + 0.1 * number))
        for number in (0, 1)
        for seed in (0, 1)
    ]
    shifted = [
        RunResult(
            candidate=result.candidate,
            seed=result.seed,
            loss=result.loss + (0.5 if result.seed else -0.5),
            folds=tuple(fold + (7.0 if place else -7.0) for place, fold in enumerate(result.folds)),
        )
        for result in plain
    ]
    before, after = difference(plain, 1, 0), difference(shifted, 1, 0)
    assert before is not None
    assert after is not None
    assert after.mean == pytest.approx(before.mean)
    assert after.half_width == pytest.approx(before.half_width, rel=1e-6)
    assert before.mean == pytest.approx(0.1)


def test_one_seed_has_the_prior_only() -> None:
    found = [RunResult(candidate=number, seed=9, loss=2.0 + number) for number in range(3)]
    variance, degrees = seed_variance(found)
    assert degrees == PRIOR_DEGREES
    assert variance == pytest.approx((0.005 * 3.0) ** 2)
    gap = difference(found, 2, 0)
    assert gap is not None
    assert (gap.seeds, gap.mean, gap.separated) == (1, 2.0, True)


def test_only_seeds_that_both_have_count() -> None:
    found = [
        RunResult(candidate=0, seed=1, loss=1.0),
        RunResult(candidate=0, seed=2, loss=5.0),
        RunResult(candidate=1, seed=1, loss=1.5),
    ]
    gap = difference(found, 1, 0)
    assert gap is not None
    assert (gap.seeds, gap.mean) == (1, 0.5)
    assert difference(found, 0, 7) is None


def test_noise_on_few_evaluation_examples_widens_the_interval() -> None:
    def width(spread: float) -> float:
        source = np.random.default_rng(3)
        gap = difference(results(source, [2.0, 2.0], 3, by_seed=0.001, by_fold=spread, rest=0.0), 0, 1)
        assert gap is not None
        return gap.half_width

    assert width(0.1) > 3 * width(0.001)


def test_the_order_in_which_runs_end_does_not_matter() -> None:
    source = np.random.default_rng(5)
    found = results(source, [LOSS, LOSS + 0.01, LOSS], 3, by_seed=0.005, by_fold=0.02, rest=0.02)
    gaps = {difference([found[index] for index in source.permutation(len(found))], 1, 0) for _ in range(20)}
    assert len(gaps) == 1
