"""Synchronous brackets, on single views and on whole simulated studies."""

from dataclasses import replace
from typing import Any

import pytest

from hpo_service.search.strategies import SuccessiveHalving
from hpo_service.search.strategies.base import Advance, Finished, Start, StudyView, TrialView, Wait
from tests.searching import Simulation, resolved, trial, view

HALVING = SuccessiveHalving(3)


def bracketed(*trials: TrialView, ends: list[int], **more: Any) -> StudyView:
    return replace(view(*trials, **more), memory={"bracket_ends": ends})


def test_a_bracket_is_begun_with_the_first_trial_and_remembered() -> None:
    step = HALVING.propose(view(max_trials=18))
    assert isinstance(step, Start)
    assert step.memory == {"bracket_ends": [9]}, "three rungs and one in three: nine trials, one of which ends"
    among = HALVING.propose(bracketed(trial(0, "running"), ends=[9], max_trials=18))
    assert isinstance(among, Start)
    assert among.memory is None


@pytest.mark.parametrize(("max_trials", "slots", "size"), [(100, 1, 10), (5, 1, 5), (18, 16, 16), (14, 1, 7)])
def test_the_size_of_a_bracket(max_trials: int, slots: int, size: int) -> None:
    step = HALVING.propose(replace(view(max_trials=max_trials), slots=slots))
    assert isinstance(step, Start)
    assert step.memory == {"bracket_ends": [size]}


def test_nobody_advances_before_all_are_there() -> None:
    there = [trial(0, losses=[0.1]), trial(1, losses=[0.2])]
    assert HALVING.propose(bracketed(*there, trial(2, "running"), ends=[3], max_trials=3)) == Wait()
    step = HALVING.propose(bracketed(*there, trial(2, losses=[0.3]), ends=[3], max_trials=3))
    assert isinstance(step, Advance)
    assert (step.trial_number, step.until_examples) == (0, 30)
    assert step.reason == "bracket 1: rank 1 of the 1 that go on from 10 examples"


def test_a_failed_trial_is_not_waited_for() -> None:
    there = [trial(0, losses=[0.1]), trial(1, losses=[0.2]), trial(2, "failed")]
    step = HALVING.propose(bracketed(*there, ends=[3], max_trials=3))
    assert isinstance(step, Advance)
    assert step.trial_number == 0


def test_the_place_of_one_that_failed_later_goes_to_the_next() -> None:
    trials = [trial(0, "failed", [0.1]), trial(1, losses=[0.2]), trial(2, losses=[0.3])]
    step = HALVING.propose(bracketed(*trials, ends=[3], max_trials=3))
    assert isinstance(step, Advance)
    assert step.trial_number == 1


def test_the_second_rung_waits_for_those_who_go_there_only() -> None:
    low = [trial(number, losses=[0.5 + number / 10]) for number in range(2, 6)]
    ahead = [trial(0, losses=[0.1, 0.1]), trial(1, "running", [0.2])]
    assert HALVING.propose(bracketed(*ahead, *low, ends=[6], max_trials=6)) == Wait()
    ahead[1] = trial(1, losses=[0.2, 0.05])
    step = HALVING.propose(bracketed(*ahead, *low, ends=[6], max_trials=6))
    assert isinstance(step, Advance)
    assert (step.trial_number, step.until_examples) == (1, 100)


def test_a_free_slot_begins_the_next_bracket() -> None:
    trials = [trial(0, losses=[0.1]), trial(1, "running")]
    step = HALVING.propose(bracketed(*trials, ends=[2], max_trials=10))
    assert isinstance(step, Start)
    assert step.memory == {"bracket_ends": [2, 10]}


def test_brackets_do_not_compete() -> None:
    worse = [trial(number, losses=[0.9]) for number in range(3)]
    better = [trial(number, losses=[0.1]) for number in range(3, 6)]
    step = HALVING.propose(bracketed(*worse, *better, ends=[3, 6], max_trials=6))
    assert isinstance(step, Advance)
    assert step.trial_number == 0


def test_trials_with_an_end_of_their_own_are_not_expected_later() -> None:
    short = TrialView(number=0, standing="complete", losses={10: 0.1, 20: 0.1}, ladder=(10, 20))
    others = [trial(number, losses=[number / 10]) for number in range(1, 6)]
    step = HALVING.propose(bracketed(short, *others, ends=[6], max_trials=6))
    assert isinstance(step, Advance)
    assert step.trial_number == 1, "two of six go on from the first rung; the short one has its place there"


def test_the_end() -> None:
    trials = [trial(0, "complete", [0.1, 0.1, 0.1]), trial(1, losses=[0.2]), trial(2, losses=[0.3])]
    assert isinstance(HALVING.propose(bracketed(*trials, ends=[3], max_trials=3)), Finished)


@pytest.mark.parametrize("workers", [1, 4, 16])
def test_a_study_advances_a_third_of_each_bracket(workers: int) -> None:
    study = resolved(budget={"max_trials": 28}, search={"strategy": "successive_halving"}, baseline={})
    simulation = Simulation(study, workers=workers)
    simulation.run()
    searched = simulation.trials[1:]
    reached = [sum(rung in trial.losses for trial in searched) for rung in study.ladder]
    assert reached == [27, 9, 3, 1]


def test_a_bracket_that_was_cut_off_by_the_budget_goes_on_when_it_grows() -> None:
    study = resolved(budget={"max_trials": 9}, search={"strategy": "successive_halving"})
    simulation = Simulation(
        study, workers=16, changes={14: lambda it: it.adopt(it.study.extend({}, {"max_trials": 27}))}
    )
    simulation.run()
    assert len(simulation.trials) == 27
    assert simulation.memory["bracket_ends"][0] == 16
