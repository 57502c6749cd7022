"""Losses as the Gaussian process takes them."""

import math

import numpy as np
import pytest

from hpo_service.search.strategies.base import TrialView
from hpo_service.search.strategies.freeze_thaw.curves import Curves, Squash, read
from tests.searching import trial

LADDER = (10, 30, 100)
SQUASH = Squash(quantile=0.5, width=0.3)
NO_SQUASH = Squash(quantile=1.0, width=0.3)


def curved(*log_losses: list[float], squash: Squash = NO_SQUASH) -> Curves:
    return read([trial(n, losses=[math.exp(x) for x in logs]) for n, logs in enumerate(log_losses)], LADDER, squash)


def test_values_are_standardized_and_lead_back_to_losses() -> None:
    known = curved([0.3, 0.1], [0.6], [0.9, 0.8, 0.7])
    examples = known.ladder[known.rungs]
    assert np.exp(known.log_loss(known.values, examples)) == pytest.approx(np.exp([0.3, 0.1, 0.6, 0.9, 0.8, 0.7]))
    assert known.rows.tolist() == [0, 0, 1, 2, 2, 2]
    assert known.best == pytest.approx(0.1)
    first = known.values[known.rungs == 0]
    assert first.std() == pytest.approx(1)


def test_the_worse_half_is_squashed_and_keeps_its_order() -> None:
    logs = [[0.0], [0.1], [0.2], [1.2], [5.0]]
    known = curved(*logs, squash=SQUASH)
    back = known.log_loss(known.values, known.ladder[known.rungs])
    assert back[:3] == pytest.approx([0.0, 0.1, 0.2])
    assert 0.2 < back[3] < back[4] <= 0.5 + 1e-9


def test_a_single_trial_that_ends_before_the_first_rung_does_not_set_the_scale() -> None:
    short = TrialView(number=0, standing="complete", losses={5: 2.0}, ladder=(5,))
    others = [trial(number, losses=[1.0 + number / 10]) for number in range(1, 8)]
    assert 0.01 < read([short, *others], LADDER, SQUASH).scale < 1


def test_the_common_curve_is_not_bent_by_survivors() -> None:
    """Every trial would fall by 0.3; only the best quarter went on, so the plain means fall by three times as much."""
    starts = np.linspace(0, 2, 20)
    logs = [[start, start - 0.3] if rank < 5 else [start] for rank, start in enumerate(starts.tolist())]
    known = curved(*logs)
    plain = np.mean([each[1] for each in logs if len(each) > 1]) - np.mean(starts)
    fall = known.common[1] - known.common[0]
    assert plain < -1
    assert fall == pytest.approx(-0.3, abs=0.02)


def test_where_nobody_has_been_the_curve_goes_on_falling_slower() -> None:
    known = curved([1.0, 0.8], [1.2, 1.0])
    falls = np.diff(known.common)
    assert falls[0] < falls[1] < 0
    rising = curved([0.8, 1.0], [1.0, 1.2])
    assert np.diff(rising.common)[1] == 0


def test_the_common_curve_between_rungs() -> None:
    known = curved([1.0, 0.8, 0.5])
    halfway = math.sqrt(10 * 30)
    assert known.common_at(np.array([10.0, halfway, 30.0])) == pytest.approx(
        [known.common[0], (known.common[0] + known.common[1]) / 2, known.common[1]]
    )


def folded(number: int, folds: np.ndarray) -> TrialView:
    return trial(number, losses=[float(folds.mean())], fold_losses={10: tuple(folds.tolist())})


def noise_of(trials: list[TrialView]) -> np.ndarray:
    """Standard deviations in log loss."""
    known = read(trials, LADDER, NO_SQUASH)
    return np.asarray(np.sqrt(known.noise) * known.scale)


def test_noise_is_that_of_differences_between_trials() -> None:
    """Folds are of different difficulty for all trials alike: that is no noise."""
    random = np.random.default_rng(0)
    difficulty, skill = random.normal(0, 0.3, 8), np.linspace(2, 3, 12)
    trials = [folded(n, level + difficulty + random.normal(0, 0.01, 8)) for n, level in enumerate(skill)]
    unpaired = np.array([np.std(trial.fold_losses[10], ddof=1) / np.sqrt(8) / trial.losses[10] for trial in trials])
    assert np.all(noise_of(trials) < 0.1 * unpaired)


def test_noise_where_folds_share_nothing() -> None:
    random = np.random.default_rng(0)
    trials = [folded(n, 2 + random.normal(0, 0.1, 64)) for n in range(30)]
    assert noise_of(trials).mean() == pytest.approx(0.1 / np.sqrt(64) / 2, rel=0.1)


def test_without_folds_or_peers_no_noise_is_known() -> None:
    assert noise_of([trial(0, losses=[1.0]), trial(1, losses=[2.0])]).tolist() == [0, 0]
    assert noise_of([folded(0, np.arange(1.0, 9.0)), trial(1, losses=[2.0])]).tolist() == [0, 0]


def test_of_too_many_observations_the_informative_ones_are_kept() -> None:
    logs = [[1 + n / 100, 0.9 + n / 100, 0.8 + n / 100] for n in range(100)]
    known = curved(*logs)
    chosen = known.kept(150, np.random.default_rng(0))
    assert len(chosen) == len(set(chosen.tolist())) <= 150
    best = chosen[known.rows[chosen] < 20]
    assert len(best) == 60, "all three rungs of the twenty best"
    assert set(known.rungs[chosen[known.rows[chosen] >= 20]].tolist()) == {2}
    few = known.kept(60, np.random.default_rng(0))
    assert len(few) == 60
    assert known.kept(1000, np.random.default_rng(0)).tolist() == list(range(300))


def test_a_rung_of_its_own_has_a_place_on_the_ladder() -> None:
    short = TrialView(number=1, standing="complete", losses={10: 1.0, 20: 0.9}, ladder=(10, 20))
    known = read([trial(0, losses=[1.0]), short], LADDER, SQUASH)
    assert known.ladder.tolist() == [10, 20, 30, 100]
    assert known.rungs.tolist() == [0, 0, 1]
