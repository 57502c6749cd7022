"""Who is confirmed after a search."""

from typing import Any

import pytest

from hpo_service.dispatcher.lifecycle.confirmation_candidates import candidates
from hpo_service.search.strategies.base import TrialStanding, TrialView
from hpo_service.spec import ResolvedStudy, parse_spec, resolve
from tests.dispatching import SPEC
from trainer.spec import Outcome, Parameters

LADDER = (60, 180, 540, 1000)


@pytest.fixture(scope="module")
def resolved() -> ResolvedStudy:
    spec = parse_spec(SPEC)
    return resolve(spec, model_path="/m", train="/d/t.jsonl", eval=None, train_rows=1000, eval_rows=50)


def trial(number: int, *losses: float, standing: TrialStanding | None = None, **facts: Any) -> TrialView:
    """With a loss at each of the first rungs; at the last one it is complete, else it is paused."""
    rate = facts.pop("learning_rate", 1e-4 * (number + 1))
    return TrialView(
        number=number,
        standing=standing or ("complete" if len(losses) == len(LADDER) else "pruned"),
        sampled={"learning_rate": rate},
        parameters=Parameters(learning_rate=rate).model_dump(),
        losses=dict(zip(LADDER, losses, strict=False)),
        ladder=LADDER,
        **facts,
    )


BASELINE = trial(0, 3.0, 2.6, 2.3, 2.2, baseline=True)


def chosen(resolved: ResolvedStudy, *trials: TrialView, top: int = 2) -> list[int]:
    return [one.trial_number for one in candidates(resolved, trials, top)]


def test_a_paused_trial_that_is_better_already_comes_before_a_complete_one(resolved: ResolvedStudy) -> None:
    trials = (BASELINE, trial(1, 2.9, 2.5, 2.25, 2.15), trial(2, 2.8, 2.7, 2.6, 2.5), trial(3, 2.2, 2.0))
    assert chosen(resolved, *trials) == [3, 1, 0]
    assert chosen(resolved, *trials, top=1) == [3, 0]


def test_a_paused_trial_that_was_ahead_at_the_same_rung_comes_before_a_complete_one(resolved: ResolvedStudy) -> None:
    """Its loss is higher than that of the complete one, which has seen five times as much."""
    trials = (BASELINE, trial(1, 3.1, 2.7, 2.4, 2.3), trial(2, 2.6, 2.31), trial(3, 3.4, 3.2))
    assert chosen(resolved, *trials) == [2, 1, 0]


def test_a_complete_trial_counts_as_it_ended(resolved: ResolvedStudy) -> None:
    trials = (BASELINE, trial(1, 2.0, 1.9, 2.1, 2.4), trial(2, 3.0, 2.5, 2.3, 2.1))
    assert chosen(resolved, *trials) == [2, 1, 0]


def test_the_baseline_is_in_even_if_the_search_could_not_measure_it(resolved: ResolvedStudy) -> None:
    lost = trial(0, standing="failed", baseline=True, outcome=Outcome.LOST)
    found = candidates(resolved, [lost, trial(1, 3.0, 2.5)], 3)
    assert [(one.trial_number, one.baseline, one.loss, one.examples) for one in found] == [
        (1, False, 2.5, 180),
        (0, True, None, 0),
    ]
    assert {one.run_examples for one in found} == {1000}


@pytest.mark.parametrize("outcome", [Outcome.OOM, Outcome.DIVERGED])
def test_a_baseline_that_cannot_be_trained_is_not(resolved: ResolvedStudy, outcome: Outcome) -> None:
    failed = trial(0, 3.0, standing="failed", baseline=True, outcome=outcome)
    assert chosen(resolved, failed, trial(1, 3.0, 2.5)) == [1]


def test_trials_that_failed_or_were_never_measured_are_out(resolved: ResolvedStudy) -> None:
    failed = trial(1, 1.0, standing="failed", outcome=Outcome.DIVERGED)
    assert chosen(resolved, BASELINE, failed, trial(2, standing="failed"), trial(3, float("nan")), trial(4, 2.9)) == [
        4,
        0,
    ]


def test_equal_parameters_are_confirmed_once(resolved: ResolvedStudy) -> None:
    twins = [trial(1, 2.1, 2.0, learning_rate=2e-4), trial(2, 2.0, learning_rate=2e-4)]
    assert chosen(resolved, BASELINE, *twins, trial(3, 2.5)) == [2, 3, 0]
    like_the_baseline = trial(1, 2.0, learning_rate=1e-4)
    assert chosen(resolved, BASELINE, like_the_baseline) == []


def test_nothing_to_confirm(resolved: ResolvedStudy) -> None:
    assert candidates(resolved, [], 3) == ()
    assert candidates(resolved, [BASELINE], 3) == ()
