"""The median rule, and the strategy that never prunes."""

import math

import pytest

from hpo_service.search.strategies import Median, NoPruning
from hpo_service.search.strategies.base import Advance, Finished, Start
from tests.searching import Simulation, resolved, trial, view

MEDIAN = Median(3)


def test_worse_than_the_median_of_peers_is_pruned_whatever_they_do() -> None:
    peers = [trial(0, "running", [0.1]), trial(1, "pruned", [0.2]), trial(2, "complete", [0.3])]
    worse = MEDIAN.judge(view(*peers, trial(3, "running", [0.25])), 3)
    assert worse.verdict == "prune"
    assert worse.reason == "0.25 against the median 0.2 of 3 others at 10 examples"
    assert MEDIAN.judge(view(*peers, trial(3, "running", [0.2])), 3).verdict == "pause"


def test_a_loss_that_is_no_number_counts_as_the_worst() -> None:
    peers = [trial(0, losses=[math.nan]), trial(1, losses=[0.3]), trial(2, losses=[math.nan])]
    assert MEDIAN.judge(view(*peers, trial(3, "running", [0.25])), 3).verdict == "pause"
    assert MEDIAN.judge(view(*peers, trial(3, "running", [math.nan])), 3).verdict == "prune"


def test_peers_are_compared_at_the_same_rung() -> None:
    peers = [trial(number, "paused", [0.1, 0.01]) for number in range(3)]
    assert MEDIAN.judge(view(*peers, trial(3, "running", [0.09])), 3).verdict == "pause"


def test_too_few_peers() -> None:
    judgement = MEDIAN.judge(view(trial(0, losses=[0.1]), trial(1, losses=[0.2]), trial(2, "running", [9.0])), 2)
    assert (judgement.verdict, judgement.reason) == ("pause", "2 others at 10 examples, 3 are needed")


def test_the_baseline_is_never_pruned() -> None:
    peers = [trial(number, "paused", [0.1]) for number in range(1, 5)]
    assert MEDIAN.judge(view(trial(0, "running", [9.0], baseline=True), *peers), 0).verdict == "pause"


def test_the_last_hope_is_not_pruned() -> None:
    one = Median(1)
    trials = [
        trial(0, "complete", [0.1, 0.1, 0.1], baseline=True),
        trial(1, "pruned", [0.3]),
        trial(2, "running", [0.25]),
    ]
    assert one.judge(view(*trials, max_trials=3), 2).verdict == "pause"
    assert one.judge(view(*trials, max_trials=4), 2).verdict == "prune"


def test_paused_trials_go_on_before_new_ones_start() -> None:
    step = MEDIAN.propose(view(trial(0, "pruned", [0.3]), trial(1, losses=[0.2, 0.2]), trial(2, losses=[0.1])))
    assert isinstance(step, Advance)
    assert (step.trial_number, step.until_examples) == (1, 100)
    assert isinstance(MEDIAN.propose(view(trial(0, "pruned", [0.3]))), Start)


@pytest.mark.parametrize("workers", [1, 4])
def test_a_study_prunes_and_ends_with_complete_trials(workers: int) -> None:
    study = resolved(budget={"max_trials": 24}, search={"strategy": "median"}, baseline={"learning_rate": 1e-3})
    simulation = Simulation(study, workers=workers)
    simulation.run()
    standings = [trial.standing for trial in simulation.trials]
    assert set(standings) == {"complete", "pruned"}
    assert standings.count("pruned") >= 6
    assert simulation.spent < 0.8 * 24 * 1000


@pytest.mark.parametrize("workers", [1, 4])
def test_one_startup_trial_still_leaves_a_complete_one(workers: int) -> None:
    study = resolved(
        budget={"max_trials": 4},
        search={"strategy": "median", "startup_trials": 1},
        baseline={"learning_rate": 3e-4},
    )
    simulation = Simulation(study, workers=workers)
    simulation.run()
    assert any(trial.standing == "complete" and not trial.baseline for trial in simulation.trials)


@pytest.mark.parametrize("evaluations", [1, 3])
def test_without_pruning_every_trial_is_complete(evaluations: int) -> None:
    study = resolved(budget={"max_trials": 5}, search={"strategy": "none", "evaluations": evaluations})
    simulation = Simulation(study, workers=2)
    simulation.run()
    assert [trial.standing for trial in simulation.trials] == ["complete"] * 5
    assert [len(trial.losses) for trial in simulation.trials] == [evaluations] * 5
    assert simulation.spent == 5000


def test_without_pruning_the_end_is_the_end() -> None:
    assert isinstance(NoPruning().propose(view(trial(0, "complete", [1, 1, 1]), max_trials=1)), Finished)
