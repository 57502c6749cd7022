"""Several objectives as one number a rung."""

from dataclasses import replace

import numpy as np
import pytest

from hpo_service.search.strategies import Asha
from hpo_service.search.strategies.base import Advance, Start, StudyView, Wait
from hpo_service.search.strategies.scalarization import Scalarization
from hpo_service.spec.objectives import LOSS, Objective
from tests.searching import trial, view

SIZE = Objective(name="adapter_parameters", goal="minimize")
SPEED = Objective(name="train_tokens_per_second", goal="maximize")
TRIALS = (
    trial(0, "paused", [2.0, 1.5], measures={"adapter_parameters": 100.0}),
    trial(1, "paused", [2.2], measures={"adapter_parameters": 10.0}),
    trial(2, "paused", [2.4], measures={"adapter_parameters": 50.0}),
    trial(3, "running"),
)


def seen(decision_number: int = 0, objectives: tuple[Objective, ...] = (LOSS, SIZE)) -> StudyView:
    return replace(view(*TRIALS, decision_number=decision_number), objectives=objectives)


def test_weights_sum_to_one_and_differ_between_decisions_only() -> None:
    first, again, second = (Scalarization(seen(number)).weights for number in (0, 0, 1))
    assert first.sum() == pytest.approx(1)
    assert first.tolist() == again.tolist()
    assert first.tolist() != second.tolist()


def test_ranks_put_the_front_first_whatever_the_weights() -> None:
    for number in range(20):
        losses = {t.number: t.losses for t in Scalarization(seen(number)).ranks().trials}
        assert {number for number in (0, 1, 2) if 1 <= losses[number][10] < 2} == {0, 1}
        assert 2 <= losses[2][10] < 3
        assert losses[3] == {}


def test_curves_still_fall_and_prefer_what_the_weights_prefer() -> None:
    for number in range(20):
        together = Scalarization(seen(number))
        trials = together.curves().trials
        assert trials[0].losses[30] <= trials[0].losses[10]
        if together.weights[1] > 0.9:
            assert trials[1].losses[10] < trials[0].losses[10]
        if together.weights[0] > 0.9:
            assert trials[0].losses[10] < trials[1].losses[10]
        assert all(np.isfinite(list(trial.losses.values())).all() for trial in trials)
    best_by = [
        min(Scalarization(seen(number)).curves().trials[:3], key=lambda t: t.losses[10]).number for number in range(30)
    ]
    assert set(best_by) == {0, 1}


def test_a_larger_value_is_better_where_the_goal_says_so() -> None:
    fast, slow = (trial(n, "paused", [2.0], measures={SPEED.name: speed}) for n, speed in enumerate((900.0, 300.0)))
    both = replace(view(fast, slow, decision_number=4), objectives=(LOSS, SPEED))
    trials = Scalarization(both).ranks().trials
    assert trials[0].losses[10] < trials[1].losses[10]


def test_a_measure_that_is_missing_or_the_same_for_all_harms_nothing() -> None:
    same = replace(view(trial(0, "paused", [2.0]), trial(1, "paused", [1.0])), objectives=(LOSS, SIZE))
    assert Scalarization(same).curves().trials[1].losses[10] < Scalarization(same).curves().trials[0].losses[10]
    empty = replace(view(trial(0, "running")), objectives=(LOSS, SIZE))
    assert Scalarization(empty).curves().trials == empty.trials


def test_a_step_tells_its_weights_and_that_its_figures_are_about_all_objectives() -> None:
    together = Scalarization(seen())
    step = Advance(trial_number=0, until_examples=30, reason="why", numbers={"predicted_loss": 1.0, "rule": "x"})
    told = together.told(step)
    assert isinstance(told, Advance)
    assert set(told.numbers) == {"together_predicted_loss", "rule", "weight_eval_loss", "weight_adapter_parameters"}
    assert "eval_loss" in told.reason
    assert together.told(Wait()) == Wait()


def test_asha_advances_small_adapters_too() -> None:
    """By loss alone only trial 0 would ever leave the first rung."""
    trials = [trial(n, "paused", [2.0 + 0.1 * n], measures={"adapter_parameters": 100.0 / (n + 1)}) for n in range(9)]
    advanced = set()
    for number in range(20):
        many = replace(view(*trials, decision_number=number, max_trials=9), objectives=(LOSS, SIZE))
        step = Asha(3).propose(Scalarization(many).ranks())
        assert isinstance(step, Advance | Start)
        assert step.trial_number is not None
        advanced.add(step.trial_number)
    assert min(advanced) < 3 < max(advanced)
