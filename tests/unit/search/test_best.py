"""Which trial wins, against what, and what stopping early has saved."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from hpo_service.search.best import best_trial, savings


@dataclass(frozen=True)
class Trial:
    """A trial as `best` reads it."""

    number: int
    state: str = "COMPLETE"
    value: float | None = None
    intermediate: Mapping[int, float] = field(default_factory=dict)
    user_attrs: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)


def complete(number: int, loss: float, at: int = 100, **attrs: Any) -> Trial:
    losses = {10: loss + 1, at: loss}
    return Trial(number, "COMPLETE", loss, losses, {"total_examples": at, **attrs}, {"lora_r": 8 * number})


def test_no_trial_no_best() -> None:
    assert best_trial([]) is None
    assert best_trial([Trial(0, "WAITING"), Trial(1, "RUNNING")]) is None


def test_lowest_complete_loss_wins() -> None:
    best = best_trial([complete(0, 2.0), complete(1, 1.0), complete(2, 1.5)])
    assert best is not None
    assert (best.trial_number, best.loss, best.examples, best.provisional) == (1, 1.0, 100, False)
    assert best.parameters == {"lora_r": 8}


def test_equal_losses_go_to_the_lower_number() -> None:
    best = best_trial([complete(3, 1.0), complete(2, 1.0)])
    assert best is not None
    assert best.trial_number == 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_a_loss_that_is_no_number_never_wins(value: float | None) -> None:
    best = best_trial([Trial(0, "COMPLETE", value, {100: math.nan}), complete(1, 5.0)])
    assert best is not None
    assert best.trial_number == 1


def test_complete_beats_a_lower_loss_that_was_pruned() -> None:
    best = best_trial([Trial(0, "PRUNED", None, {50: 0.1}), complete(1, 5.0)])
    assert best is not None
    assert (best.trial_number, best.provisional) == (1, False)


def test_without_complete_trials_the_highest_rung_leads_provisionally() -> None:
    trials = [
        Trial(0, "PRUNED", None, {10: 0.5}),
        Trial(1, "RUNNING", None, {10: 3.0, 30: 2.0}),
        Trial(2, "RUNNING", None, {10: 2.0, 30: 2.5}),
        Trial(3, "FAIL", None, {10: 1.0, 90: 0.1}),
        Trial(4, "RUNNING", None, {10: 1.0, 90: math.nan}),
    ]
    best = best_trial(trials)
    assert best is not None
    assert (best.trial_number, best.loss, best.examples, best.provisional) == (1, 2.0, 30, True)


def test_improvement_compares_after_equal_examples() -> None:
    baseline = Trial(0, "COMPLETE", 4.0, {10: 5.0, 100: 4.0}, {"baseline": True})
    winner = Trial(1, "COMPLETE", 2.0, {10: 4.5, 100: 3.0, 200: 2.0})
    best = best_trial([baseline, winner])
    assert best is not None
    assert best.improvement is not None
    assert (best.improvement.examples, best.improvement.baseline_loss, best.improvement.loss) == (100, 4.0, 3.0)
    assert best.improvement.relative == pytest.approx(0.25)


def test_a_baseline_that_wins_gains_nothing() -> None:
    best = best_trial([complete(0, 1.0, baseline=True), complete(1, 2.0)])
    assert best is not None
    assert best.improvement is not None
    assert best.improvement.relative == 0.0


@pytest.mark.parametrize(
    "baseline",
    [
        Trial(0, "FAIL", None, {}, {"baseline": True}),
        Trial(0, "COMPLETE", math.nan, {100: math.nan}, {"baseline": True}),
        Trial(0, "COMPLETE", 3.0, {70: 3.0}, {"baseline": True}),
        Trial(0, "COMPLETE", 3.0, {100: 3.0}, {}),
    ],
)
def test_no_improvement_without_a_common_rung(baseline: Trial) -> None:
    best = best_trial([baseline, Trial(1, "COMPLETE", 2.0, {100: 2.0})])
    assert best is not None
    assert best.improvement is None


def test_savings_count_what_pruned_and_paused_trials_did_not_see() -> None:
    trials = [
        Trial(0, "COMPLETE", 1.0, {100: 1.0}, {"total_examples": 100}),
        Trial(1, "PRUNED", None, {10: 1.0}, {"total_examples": 100}),
        Trial(2, "RUNNING", None, {30: 1.0}, {"total_examples": 100, "hpo_state": "paused"}),
        Trial(3, "RUNNING", None, {}, {"total_examples": 100}),
        Trial(4, "WAITING"),
        Trial(5, "FAIL", None, {}, {"total_examples": 100}),
    ]
    saved = savings(trials)
    assert saved.examples == 90 + 70
    assert saved.share == pytest.approx(160 / 400)


def test_nothing_is_saved_before_the_start() -> None:
    assert savings([Trial(0, "WAITING")]).share == 0.0
