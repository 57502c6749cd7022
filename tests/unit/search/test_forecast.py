"""Forecasts: the arithmetic, the caps, and that the ranges hold for studies that are played through."""

from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from hpo_service.core.study_rules import Limits, Spent
from hpo_service.search.forecast import Forecast, capped, forecast, remaining_examples, spread
from hpo_service.spec.estimate import expected_trials
from hpo_service.spec.study import StrategyName
from tests.searching import Simulation, resolved

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SPENT = Spent(examples=1000, seconds=500.0, usd=5.0)


def found(remaining: float = 3000.0) -> Forecast:
    known = forecast("none", remaining, SPENT, [0.5, 0.5, 0.5], devices=2, usd_per_second=0.01, now=NOW)
    assert known is not None
    return known


def test_what_is_to_come_follows_from_those_who_are_still_to_reach_a_rung() -> None:
    assert remaining_examples([9, 3, 1], [9, 1, 0], [100, 300, 900]) == 2 * 200 + 600


def test_it_goes_on_at_the_pace_so_far() -> None:
    known = found()
    assert known.usd.expected == pytest.approx(5 + 1500 * 0.01)
    assert known.gpu_hours.expected == pytest.approx(2000 / 3600)
    assert known.ends_at == NOW + timedelta(seconds=750)


def test_a_pace_that_was_timed_once_widens_the_range() -> None:
    unsure = forecast("none", 3000.0, SPENT, [0.5], devices=2, usd_per_second=0.01, now=NOW)
    assert unsure is not None
    assert unsure.usd.low < found().usd.low <= found().usd.high < unsure.usd.high


def test_before_anything_is_measured_there_is_none() -> None:
    assert forecast("asha", 10.0, Spent(), [], devices=1, usd_per_second=0.0, now=NOW) is None


def test_no_cap_is_exceeded() -> None:
    limits = Limits(max_trials=9, max_cost_usd=10.0, max_wall_hours=0.1)
    known = capped(found(), limits, NOW - timedelta(minutes=1))
    assert known.usd.high == 10.0
    assert known.latest == NOW + timedelta(minutes=5)


@pytest.mark.parametrize("strategy", ["asha", "successive_halving", "hyperband"])
def test_the_range_holds_for_studies_that_are_played_through(strategy: StrategyName) -> None:
    for seed in range(3):
        search = {"strategy": strategy, "seed": seed, "sampler": "random"}
        study = resolved(search=search, budget={"max_trials": 24})
        simulation = Simulation(study, workers=4, pace=lambda number: Random(number).uniform(0.5, 2))
        seen: list[tuple[int, float]] = []
        ended = simulation._end

        def note(number: int, until: int, ended=ended, simulation=simulation, seen=seen, study=study) -> None:  # type: ignore[no-untyped-def]
            ended(number, until)
            reached = [sum(rung in trial.losses for trial in simulation.trials) for rung in study.ladder]
            expected = expected_trials(study, len(study.ladder))
            seen.append((simulation.spent, remaining_examples(expected, reached, study.ladder)))

        simulation._end = note  # type: ignore[method-assign]
        simulation.run()
        spent, remaining = next((spent, left) for spent, left in seen if spent >= 0.3 * simulation.spent)
        low, _, high = spread(strategy, spent / (spent + remaining))
        assert spent + low * remaining <= simulation.spent * 1.05
        assert simulation.spent <= (spent + high * remaining) * 1.05
