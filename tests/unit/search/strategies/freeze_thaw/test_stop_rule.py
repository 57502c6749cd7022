"""Stopping a freeze-thaw search when little is left to gain."""

from dataclasses import replace

import pytest

from hpo_service.search.strategies.base import Advance, Finished, StudyView, TrialView, Wait
from hpo_service.search.strategies.freeze_thaw.stop_rule import stopped
from hpo_service.spec.stop_when import StopWhen
from tests.searching import Simulation, resolved, trial, view

RULE = StopWhen(regret_below=0.01, patience=3)
DONE = (trial(0, "complete", [3, 2, 1]), trial(1, "paused", [3]))


def decided(gain: float | None, memory: dict[str, int] | None = None) -> Advance:
    numbers = {} if gain is None else {"largest_expected_improvement": 2 * gain, "best_loss": 2.0}
    return Advance(trial_number=1, until_examples=30, reason="", numbers=numbers, memory=memory)


def seen(count: int, *trials: TrialView) -> StudyView:
    return replace(view(*(trials or DONE)), memory={"calm_decisions": count, "theta": 1})


def count_after(step: object) -> int:
    assert isinstance(step, Advance)
    assert step.memory is not None
    return int(step.memory["calm_decisions"])


def test_the_count_grows_while_little_is_expected_and_starts_again() -> None:
    assert count_after(stopped(decided(0.005), view(*DONE), RULE)) == 1
    assert count_after(stopped(decided(0.005), seen(1), RULE)) == 2
    assert count_after(stopped(decided(0.02), seen(2), RULE)) == 0


def test_a_decision_that_did_not_weigh_it_changes_no_count() -> None:
    step = stopped(decided(None, {"theta": 7}), seen(2), RULE)
    assert isinstance(step, Advance)
    assert step.memory == {"theta": 7, "calm_decisions": 2}
    kept = stopped(decided(0.005), seen(1), RULE)
    assert isinstance(kept, Advance)
    assert kept.memory == {"theta": 1, "calm_decisions": 2}


def test_patience_ends_the_search_and_says_why() -> None:
    step = stopped(decided(0.005), seen(2), RULE)
    assert isinstance(step, Finished)
    assert "0.50%" in step.reason
    assert "3 decisions" in step.reason


def test_nothing_ends_before_a_searched_trial_is_complete() -> None:
    baseline, paused = trial(0, "complete", [3, 2, 1], baseline=True), trial(1, "paused", [3, 2])
    step = stopped(decided(0.005), seen(2, baseline, paused), RULE)
    assert isinstance(step, Advance)
    assert (step.trial_number, step.until_examples) == (1, 100)


def test_what_still_runs_may_change_the_picture() -> None:
    assert isinstance(stopped(decided(0.005), seen(2, *DONE, trial(2, "running")), RULE), Wait)


@pytest.mark.parametrize("workers", [1, 4])
def test_a_study_stops_long_before_its_budget(workers: int) -> None:
    stop_when = {"regret_below": 0.01, "patience": 3}
    study = resolved(search={"strategy": "freeze_thaw", "stop_when": stop_when}, budget={"max_trials": 200})
    simulation = Simulation(study, workers=workers)
    reason = simulation.run().reason
    assert "search.stop_when" in reason
    assert len(simulation.trials) < 100
    best = min(t.losses[max(t.losses)] for t in simulation.trials if t.standing == "complete")
    assert best < 1.02 * (1 + 1000**-0.3)
