"""Promoting successive halving, on single views and on whole simulated studies."""

import pytest

from hpo_service.search.strategies import Asha
from hpo_service.search.strategies.base import Advance, Finished, Start, TrialView, Wait
from tests.searching import Simulation, resolved, trial, view

ASHA = Asha(3)


def test_the_baseline_starts_first_and_goes_to_its_end() -> None:
    waiting = [trial(0, "waiting"), trial(1, "waiting", baseline=True)]
    assert ASHA.propose(view(*waiting)) == Start(trial_number=1, reason="the baseline comes first")
    paused = [trial(0, losses=[0.1]), trial(1, losses=[9.0], baseline=True)]
    step = ASHA.propose(view(*paused))
    assert isinstance(step, Advance)
    assert (step.trial_number, step.until_examples) == (1, 30)


def test_nothing_advances_before_a_rung_has_enough_results() -> None:
    assert ASHA.propose(view(trial(0, losses=[0.1]), trial(1, losses=[0.2]))) == Start(
        trial_number=None, reason="trial 3 of 100"
    )


def test_the_best_of_three_advances() -> None:
    step = ASHA.propose(view(trial(0, losses=[0.3]), trial(1, losses=[0.1]), trial(2, losses=[0.2])))
    assert step == Advance(trial_number=1, until_examples=30, reason="rank 1 of 3 at 10 examples; the best 1 advance")


def test_those_that_advanced_before_use_up_places() -> None:
    trials = [trial(0, losses=[0.1, 0.1]), trial(1, losses=[0.2]), trial(2, losses=[0.3]), trial(3, losses=[0.4])]
    assert isinstance(ASHA.propose(view(*trials)), Start)
    more = [trial(number, losses=[0.5]) for number in (4, 5)]
    step = ASHA.propose(view(*trials, *more))
    assert isinstance(step, Advance)
    assert step.trial_number == 1


def test_the_highest_rung_goes_first() -> None:
    low = [trial(number, losses=[0.1 * number]) for number in range(6)]
    high = [trial(number, losses=[0.01, 0.01 * number]) for number in range(6, 9)]
    step = ASHA.propose(view(*low, *high))
    assert isinstance(step, Advance)
    assert (step.trial_number, step.until_examples) == (6, 100)


def test_ties_go_to_the_lower_number() -> None:
    step = ASHA.propose(view(*(trial(number, losses=[0.5]) for number in range(3))))
    assert isinstance(step, Advance)
    assert step.trial_number == 0


def test_a_trial_stopped_before_its_first_loss_goes_on() -> None:
    step = ASHA.propose(view(trial(0), trial(1, losses=[0.1])))
    assert isinstance(step, Advance)
    assert (step.trial_number, step.until_examples) == (0, 10)


def test_enqueued_trials_come_before_new_ones() -> None:
    step = ASHA.propose(view(trial(0, losses=[0.1]), trial(1, "waiting")))
    assert step == Start(trial_number=1, reason="it was enqueued")


def test_it_waits_for_what_runs_and_then_takes_one_to_the_end() -> None:
    full = [trial(0, "complete", [0.1, 0.1, 0.1], baseline=True), trial(1, losses=[0.3]), trial(2, losses=[0.2])]
    assert ASHA.propose(view(*full, trial(3, "running"), max_trials=4)) == Wait()
    step = ASHA.propose(view(*full, max_trials=3))
    assert isinstance(step, Advance)
    assert (step.trial_number, step.until_examples) == (2, 30)
    done = trial(2, "complete", [0.2, 0.2, 0.2])
    assert isinstance(ASHA.propose(view(*full[:2], done, max_trials=3)), Finished)


def test_a_study_whose_trials_all_fail_is_finished() -> None:
    step = ASHA.propose(view(trial(0, "failed"), trial(1, "failed"), max_trials=2))
    assert step == Finished(reason="none of 2 trials could be trained to its end")


def test_the_judgement_names_rank_and_rung() -> None:
    judgement = ASHA.judge(view(trial(0, losses=[0.3]), trial(1, "running", [0.1]), trial(2, losses=[0.2])), 1)
    assert judgement.verdict == "pause"
    assert judgement.reason == "rank 1 of 3 at 10 examples; the best 1 advance"
    alone = ASHA.judge(view(trial(0, "running", [0.3])), 0)
    assert alone.reason == "rank 1 of 1 at 10 examples; none advances before 3 are there"


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("seed", range(3))
def test_a_study_ends_with_a_complete_trial_for_little(workers: int, seed: int) -> None:
    study = resolved(budget={"max_trials": 24}, search={"seed": seed}, baseline={"learning_rate": 1e-3})
    simulation = Simulation(study, workers=workers)
    simulation.run()
    complete = [trial for trial in simulation.trials if trial.standing == "complete"]
    assert simulation.trials[0] in complete
    assert len(complete) >= 2
    assert simulation.spent < 0.6 * 24 * 1000
    assert len(simulation.trials) == 24
    best = min(complete, key=lambda trial: trial.losses[trial.rung])
    assert not best.baseline


@pytest.mark.parametrize("workers", [1, 4])
def test_trials_of_different_length_share_rungs(workers: int) -> None:
    study = resolved(preset="standard", search={"seed": 1})
    simulation = Simulation(study, workers=workers)
    simulation.run()
    assert any(trial.standing == "complete" and not trial.baseline for trial in simulation.trials)
    ends = {trial.ladder[-1] for trial in simulation.trials}
    assert len(ends) > 1


def test_failures_do_not_stop_a_study() -> None:
    study = resolved(budget={"max_trials": 12}, baseline={"learning_rate": 1e-3})
    simulation = Simulation(study, workers=4, fails=frozenset({1, 4, 5}))
    simulation.run()
    standings = [trial.standing for trial in simulation.trials]
    assert standings.count("failed") == 3
    assert standings.count("complete") >= 2


def test_a_study_of_one_trial() -> None:
    simulation = Simulation(resolved(budget={"max_trials": 1}))
    simulation.run()
    assert [trial.standing for trial in simulation.trials] == ["complete"]


def test_proposals_do_not_depend_on_anything_but_the_view() -> None:
    seen = view(*(trial(number, losses=[number / 10]) for number in range(6)))
    before = repr(seen)
    assert ASHA.propose(seen) == Asha(3).propose(seen)
    ASHA.judge(seen, 3)
    assert repr(seen) == before
    assert isinstance(seen.trials[0], TrialView)
