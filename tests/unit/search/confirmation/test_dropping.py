"""How often a race drops its best candidate, in simulated races that look after every seed."""

import numpy as np
import pytest

from hpo_service.search.confirmation.statistics import LEVEL, PRIOR_SPREAD
from tests.unit.search.confirmation.test_race import plan, run

RACES = 400
LOSS = 2.0
BEST = 7


def left(means: dict[int, float], spread: float, source: np.random.Generator, seeds: int = 3) -> set[int]:
    """Who is dropped as worse; a seed moves all candidates together and each by itself."""
    race = plan(*(number for number in means if number), seeds=seeds)
    shared = dict(zip(race.seeds, source.normal(0, 0.05, seeds), strict=True))
    state, _ = run(race, lambda number, seed: means[number] + shared[seed] + source.normal(0, spread * LOSS))
    return {number for number, exit in state.out.items() if exit.why == "behind"}


@pytest.mark.parametrize("spread", [PRIOR_SPREAD / 2, PRIOR_SPREAD, 2 * PRIOR_SPREAD])
def test_the_best_is_hardly_ever_dropped(spread: float) -> None:
    """The hardest case, rivals that are as good; also where seeds matter twice as much as is expected."""
    source = np.random.default_rng(1)
    means = dict.fromkeys((BEST, 3, 5, 0), LOSS)
    dropped = sum(BEST in left(means, spread, source) for _ in range(RACES))
    assert dropped / RACES <= 1 - LEVEL


def test_nor_with_many_rivals_and_looks() -> None:
    source = np.random.default_rng(2)
    means = dict.fromkeys((BEST, 1, 2, 3, 4, 0), LOSS)
    dropped = sum(BEST in left(means, PRIOR_SPREAD, source, seeds=5) for _ in range(RACES // 2))
    assert dropped / (RACES // 2) <= 1 - LEVEL


def test_the_worse_are_dropped_all_the_same() -> None:
    source = np.random.default_rng(3)
    means = {BEST: LOSS, 3: 1.03 * LOSS, 5: 1.05 * LOSS, 0: 1.04 * LOSS}
    found = [len(left(means, PRIOR_SPREAD, source)) for _ in range(RACES // 4)]
    assert np.mean(found) > 2.8
