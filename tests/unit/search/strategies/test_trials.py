"""The roster keeps what looking through all trials would find."""

import math
from dataclasses import replace
from random import Random

import pytest

from hpo_service.search.strategies import ranking
from hpo_service.search.strategies.base import StudyView
from hpo_service.search.strategies.trials import Roster, TrialStanding, TrialView

LADDER = (10, 30, 90)
FACTOR = 3


def grown(random: Random, changes: int) -> list[Roster]:
    """Every roster on the way of a study in which trials begin, report (NaN and ties too), pause and end."""
    rosters = [Roster.of([TrialView(number=0, standing="waiting", baseline=True)])]
    while len(rosters) < changes:
        known = rosters[-1]
        touched = {random.randrange(len(known) + 1) for _ in range(random.randint(1, 3))}
        views = [moved(random, known[number]) for number in touched if number < len(known)]
        if len(known) in touched:
            views.append(TrialView(number=len(known), standing="running", ladder=LADDER, running_to=LADDER[0]))
        rosters.append(known.changed(views))
    return rosters


def moved(random: Random, trial: TrialView) -> TrialView:
    rung = next((rung for rung in LADDER if rung > trial.rung), None)
    if trial.standing == "running" and rung is not None:
        loss = random.choice([math.nan, 1.0, 2.0, random.random()])
        ends: list[TrialStanding] = ["paused", "pruned", "failed"]
        standing: TrialStanding = "complete" if rung == LADDER[-1] else random.choice(ends)
        return replace(trial, standing=standing, losses={**trial.losses, rung: loss})
    return replace(trial, standing="running") if trial.standing in ("paused", "waiting") else trial


@pytest.mark.parametrize("seed", range(3))
def test_it_says_what_a_search_through_all_trials_says(seed: int) -> None:
    for roster in grown(Random(seed), 60):
        plain = tuple(roster)
        view = StudyView(seed=0, decision_number=0, max_trials=9, trials=plain, ladder=LADDER)
        assert repr(roster) == repr(Roster.of(plain))
        assert list(roster.baselines()) == [trial for trial in plain if trial.baseline]
        assert roster.standing("paused", "waiting") == view.standing("paused", "waiting")
        for rung in LADDER:
            assert repr(roster.ranked(rung)) == repr(ranking.ranked(plain, rung))
        assert ranking.best_of_the_study(roster, FACTOR) == ranking.best_of_a_rung(plain, FACTOR)
        kept = replace(view, trials=roster)
        assert ranking.first_duties(kept) == ranking.first_duties(view)
        for trial in filter(lambda trial: trial.losses, plain):
            assert ranking.standing_in_study(roster, trial, FACTOR) == ranking.standing(plain, trial, FACTOR)


def test_the_old_one_stays_as_it_was() -> None:
    rosters = grown(Random(9), 60)
    again = grown(Random(9), 60)
    assert repr(rosters) == repr(again)
    assert [one.ranked(10) for one in rosters[:5]] == [one.ranked(10) for one in again[:5]]


def test_no_number_is_left_out() -> None:
    with pytest.raises(ValueError, match="trial 2 cannot follow trial 0"):
        Roster.of([TrialView(number=0, standing="waiting")]).changed([TrialView(number=2, standing="waiting")])


def test_parameters_are_known_as_tried_once_a_trial_has_them() -> None:
    parameters = {"lora_r": 8, "target_modules": ["q_proj", "v_proj"], "betas": {"first": 0.9}}
    empty = Roster.of([TrialView(number=0, standing="waiting")])
    begun = empty.changed([TrialView(number=0, standing="running", parameters=parameters)])
    assert not empty.is_tried(parameters)
    assert begun.is_tried({"betas": {"first": 0.9}, "target_modules": ("q_proj", "v_proj"), "lora_r": 8.0})
    assert not begun.is_tried({**parameters, "lora_r": 4})
    assert not begun.is_tried({**parameters, "target_modules": ["v_proj", "q_proj"]})
    assert begun.changed([replace(begun[0], standing="paused")]).is_tried(parameters)
