"""Which trial wins, against what, and what stopping early has saved."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from hpo_service.search.best import best_trial, lead_over, leading, savings
from hpo_service.search.leader import Lead


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


def test_without_complete_trials_the_leader_is_best_provisionally() -> None:
    """Nobody who reached 10 examples is better there than trial 1, which went on; who went further fell behind it."""
    trials = [
        Trial(0, "PRUNED", None, {10: 2.5}),
        Trial(1, "RUNNING", None, {10: 1.5, 30: 2.0}),
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
    assert (best.improvement.baseline_examples, best.improvement.seeds) == (100, 0)
    assert best.improvement.relative == pytest.approx(0.25)


def test_the_baseline_is_never_the_best_of_those_trained_to_their_end() -> None:
    best = best_trial([complete(0, 1.0, baseline=True), complete(1, 2.0)])
    assert best is not None
    assert best.improvement is not None
    assert (best.trial_number, best.provisional, best.improvement.relative) == (1, False, -1.0)


def test_an_unpromising_baseline_is_not_the_best_while_a_paused_trial_is_ahead_of_it() -> None:
    baseline = Trial(0, "COMPLETE", 5.3874, {80: 5.6, 480: 5.3874}, {"baseline": True})
    paused = Trial(4, "RUNNING", None, {80: 4.9688}, {"hpo_state": "paused"})
    best = best_trial([baseline, paused])
    assert best is not None
    assert (best.trial_number, best.loss, best.examples, best.provisional) == (4, 4.9688, 80, True)


def test_the_leader_and_the_best_are_compared_after_equal_examples() -> None:
    trials = [complete(0, 2.0, baseline=True), complete(1, 1.0), Trial(2, "RUNNING", None, {10: 1.5})]
    best, first = best_trial(trials), leading(trials)
    assert best is not None
    assert first is not None
    assert (best.trial_number, first.number) == (1, 2)
    assert lead_over(first, best, trials) == Lead(examples=10, loss=1.5, other_loss=2.0, other_examples=10)
    assert lead_over(trials[1], best, trials) is None


def test_the_leader_among_those_that_may_be_it() -> None:
    trials = [complete(0, 2.0, baseline=True), Trial(1, "PRUNED", None, {10: 1.5}), Trial(2, "FAIL", None, {10: 0.1})]
    found = [leading(trials, contenders) for contenders in (None, {1}, {0}, {2}, frozenset[int]())]
    assert [None if one is None else one.number for one in found] == [1, 1, 0, None, None]


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
