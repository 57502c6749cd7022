"""Proposals: the same view gives the same point, and the view's results steer it."""

import logging
import math
from dataclasses import replace
from itertools import pairwise
from statistics import fmean, median
from time import perf_counter
from typing import Any, get_args

import pytest

from hpo_service.search.samplers import MAX_ASKS, SamplerName, propose_assignment
from hpo_service.search.strategies.base import StudyView, TrialStanding, TrialView
from hpo_service.search.strategies.nearness import Exhausted
from hpo_service.spec.space import Assignment, Infeasible, SearchSpace
from tests.searching import RATE, Simulation, resolved, space_of, synthetic_loss, unrounded, view

SPACE: dict[str, Any] = {
    "learning_rate": RATE,
    "lora_r": {"choices": [8, 16, 32]},
    "lr_scheduler": {"choices": ["cosine", "constant"]},
    "warmup_ratio": {"low": 0, "high": 0.1, "when": {"lr_scheduler": ["cosine"]}},
}


def history(space: SearchSpace, count: int, **more: Any) -> tuple[TrialView, ...]:
    """Paused trials, all of them at the first rung."""
    trials: list[TrialView] = []
    for number in range(count):
        assignment, _ = propose_assignment(space, view(decision_number=number), "random", None)
        trials.append(
            TrialView(
                number=number,
                standing="paused",
                sampled=assignment.sampled,
                parameters=assignment.parameters.model_dump(),
                losses={10: synthetic_loss(assignment.parameters, 10)},
                ladder=(10, 30, 100),
                **more,
            )
        )
    return tuple(trials)


@pytest.mark.parametrize("sampler", get_args(SamplerName))
def test_the_same_view_gives_the_same_assignment(sampler: SamplerName) -> None:
    space = unrounded(space_of(**SPACE))  # else the best point of a model is the same for every seed
    trials = history(space, 20)
    first = propose_assignment(space, view(*trials), sampler, None)
    assert propose_assignment(SearchSpace.from_json(space.to_json()), view(*trials), sampler, None) == first
    assert propose_assignment(space, replace(view(*trials), seed=1), sampler, None) != first
    if sampler != "qmc":
        assert propose_assignment(space, view(*trials, decision_number=1), sampler, None) != first


@pytest.mark.parametrize(
    ("sampler", "count", "share"), [("tpe", 40, 0.5), ("gp", 4, 0.1), ("cmaes", 40, 0.5), ("nsgaii", 80, 0.8)]
)
def test_samplers_learn_from_paused_trials(sampler: SamplerName, count: int, share: float) -> None:
    space = space_of(**SPACE)
    trials = history(space, 40)

    def mean_distance(sampler: SamplerName, count: int) -> float:
        proposals = (
            propose_assignment(space, view(*trials, decision_number=n), sampler, None)[0] for n in range(count)
        )
        return fmean(abs(math.log10(proposal.parameters.learning_rate / 3e-4)) for proposal in proposals)

    assert mean_distance(sampler, count) < share * mean_distance("random", 80)


def test_the_sampler_does_not_touch_the_view() -> None:
    space = space_of(**SPACE)
    trials = history(space, 12)
    before = repr(trials)
    propose_assignment(space, view(*trials), "tpe", None)
    assert repr(trials) == before


def test_fixed_values_are_kept_and_the_rest_is_sampled() -> None:
    space = space_of(**SPACE)
    assignment, _ = propose_assignment(space, view(*history(space, 12)), "tpe", {"lora_r": 32, "learning_rate": 1e-4})
    assert (assignment.parameters.lora_r, assignment.parameters.learning_rate) == (32, 1e-4)
    assert set(assignment.sampled) >= {"lora_r", "learning_rate", "lr_scheduler"}


def test_a_fixed_point_may_repeat_an_earlier_one() -> None:
    space = space_of(lora_r={"choices": [8, 16]})
    trials = history(space, 1)
    assert propose_assignment(space, view(*trials), "tpe", trials[0].sampled)[0].sampled == trials[0].sampled


def test_infeasible_points_are_replaced_and_counted() -> None:
    space = space_of("lora_r <= 16 or learning_rate < 2e-5", **SPACE)
    proposals = [propose_assignment(space, view(decision_number=number), "random", None) for number in range(60)]
    assert all(space.feasible(assignment) is None for assignment, _ in proposals)
    assert sum(resampled for _, resampled in proposals) > 5


def test_rare_points_are_found_by_drawing() -> None:
    space = space_of("0.0390 < warmup_ratio and warmup_ratio < 0.0410", warmup_ratio={"low": 0, "high": 1})
    most = max(propose_assignment(space, view(decision_number=number), "tpe", None)[1] for number in range(10))
    assert most > MAX_ASKS


def test_no_feasible_point_is_an_error() -> None:
    space = space_of("lora_r > 8", lora_r={"choices": [8, 16]})
    with pytest.raises(Infeasible, match="does not hold for lora_r=8"):
        propose_assignment(space, view(), "tpe", {"lora_r": 8})


def begun(number: int, assignment: Assignment, standing: TrialStanding = "paused") -> TrialView:
    return TrialView(
        number=number,
        standing=standing,
        sampled=assignment.sampled,
        parameters=assignment.parameters.model_dump(),
        losses={} if standing == "failed" else {10: synthetic_loss(assignment.parameters, 10)},
        ladder=(10, 30, 100),
    )


@pytest.mark.parametrize("sampler", get_args(SamplerName))
def test_every_point_of_a_small_space_is_proposed_once_and_then_it_is_exhausted(sampler: SamplerName) -> None:
    """What failed counts as tried."""
    space = space_of(lora_r={"choices": [4, 8, 16]}, lr_scheduler={"choices": ["cosine", "constant"]})
    trials: list[TrialView] = []
    for number in range(6):
        assignment, _ = propose_assignment(space, view(*trials, decision_number=number), sampler, None)
        trials.append(begun(number, assignment, "failed" if number % 2 else "paused"))
    assert len({tuple(trial.sampled.values()) for trial in trials}) == 6
    with pytest.raises(Exhausted, match="the space is exhausted: all 6 points of it were tried"):
        propose_assignment(space, view(*trials, decision_number=6), sampler, None)


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "qmc", "random"])
def test_one_range_is_searched_at_a_distance_until_no_gap_is_left(sampler: SamplerName) -> None:
    space, trials = space_of(warmup_ratio={"low": 0, "high": 1}), list[TrialView]()

    def search() -> None:
        for number in range(60):
            found, _ = propose_assignment(space, view(*trials, decision_number=number), sampler, None)
            trials.append(begun(number, found))

    with pytest.raises(Exhausted, match="none of 4000 points drawn from it differs from every trial by 2% of a"):
        search()
    shares = sorted(trial.sampled["warmup_ratio"] for trial in trials)
    assert min(after - before for before, after in pairwise(shares)) > 0.02 - 1e-9
    assert 25 < len(trials) < 52


def test_a_widened_space_goes_on_with_the_old_trials() -> None:
    space = space_of(lora_r={"choices": [8, 16, 32]}, learning_rate=RATE)
    trials = history(space, 12)
    grown = space.extend({"lora_r": {"choices": [2, 4, 8, 16, 32, 64]}, "learning_rate": {"low": 1e-6}})
    ranks = {
        propose_assignment(grown, view(*trials, decision_number=n), "tpe", None)[0].parameters.lora_r for n in range(60)
    }
    assert ranks & {2, 4, 64}


def test_optuna_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    space = space_of(**SPACE)
    with caplog.at_level(logging.INFO):
        for sampler in get_args(SamplerName):
            propose_assignment(space, view(*history(space, 12)), sampler, None)
    assert not caplog.records


def test_a_proposal_with_300_trials_is_quick() -> None:
    study = resolved(preset="standard")
    space = study.search_space()
    trials = history(space, 300)
    seconds = []
    for number in range(9):
        start = perf_counter()
        propose_assignment(space, view(*trials, decision_number=number), "tpe", None)
        seconds.append(perf_counter() - start)
    assert median(seconds) < 0.5, "50 ms on an idle core; the margin is for a busy one"


def test_a_whole_study_repeats_itself() -> None:
    study = resolved(budget={"max_trials": 20}, search={"seed": 3})
    first, second = Simulation(study, workers=1), Simulation(study, workers=1)
    first.run()
    second.run()
    assert first.trials == second.trials
    assert first.reasons == second.reasons


def test_views_are_values() -> None:
    assert view() == StudyView(seed=0, decision_number=0, max_trials=100, trials=(), ladder=(10, 30, 100))
