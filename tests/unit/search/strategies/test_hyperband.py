"""Hyperband: which bracket a trial belongs to, and what happens inside one."""

from collections import Counter

import pytest

from hpo_service.core import study_rules
from hpo_service.search.strategies import Hyperband
from hpo_service.search.strategies.base import Advance, Start, TrialView
from tests.searching import Simulation, resolved, trial, view

HYPERBAND = Hyperband(3)
LADDER = (10, 30, 100)


def numbers_of(bracket: int, count: int) -> list[int]:
    """The first trials of a bracket."""
    return [number for number in range(200) if HYPERBAND.bracket(number, LADDER) == bracket][:count]


def padded(*trials: TrialView) -> list[TrialView]:
    """The trials at their numbers, and failed ones in between."""
    known = {each.number: each for each in trials}
    return [known.get(number, trial(number, "failed")) for number in range(max(known) + 1)]


@pytest.mark.parametrize("count", [30, 100, 1000])
def test_every_bracket_has_its_share_of_the_trials(count: int) -> None:
    found = Counter(HYPERBAND.bracket(number, LADDER) for number in range(count))
    for bracket, share in enumerate(study_rules.bracket_shares(LADDER, 3)):
        assert abs(found[bracket] - share * count) < 4


def test_brackets_see_the_same_number_of_examples() -> None:
    shares = study_rules.bracket_shares(LADDER, 3)
    examples = [10 + 20 / 3 + 70 / 9, 30 + 70 / 3, 100]
    assert [share * cost for share, cost in zip(shares, examples, strict=True)] == pytest.approx([shares[2] * 100] * 3)
    assert sum(shares) == pytest.approx(1)


def test_a_trial_goes_straight_to_where_its_bracket_begins() -> None:
    (number,) = numbers_of(2, 1)
    step = HYPERBAND.propose(view(*padded(trial(number, losses=[9.0]))))
    assert step == Advance(trial_number=number, until_examples=100, reason="bracket 2 begins at 100 examples")


def test_one_in_three_of_a_bracket_advances_whatever_others_have() -> None:
    first, second = numbers_of(0, 3), numbers_of(1, 2)
    others = [trial(number, losses=[0.01, 0.01]) for number in second]
    mine = [trial(number, losses=[loss]) for number, loss in zip(first, [0.3, 0.1, 0.2], strict=True)]
    step = HYPERBAND.propose(view(*padded(*mine, *others)))
    assert isinstance(step, Advance)
    assert (step.trial_number, step.until_examples) == (first[1], 30)
    assert step.reason == "bracket 0: rank 1 of 3 at 10 examples; the best 1 advance"
    assert isinstance(HYPERBAND.propose(view(*padded(*mine[:2], *others))), Start)


def test_a_short_trial_of_a_late_bracket_ends_at_its_end() -> None:
    (number,) = numbers_of(2, 1)
    short = TrialView(number=number, standing="paused", losses={10: 0.5}, ladder=(10, 20))
    step = HYPERBAND.propose(view(*padded(short)))
    assert isinstance(step, Advance)
    assert step.until_examples == 20


def test_the_judgement_names_the_bracket() -> None:
    (late,) = numbers_of(2, 1)
    judged = HYPERBAND.judge(view(*padded(trial(late, "running", [0.3]))), late)
    assert judged.reason == "bracket 2 begins at 100 examples"
    (early,) = numbers_of(0, 1)
    judged = HYPERBAND.judge(view(*padded(trial(early, "running", [0.3]))), early)
    assert judged.reason == "bracket 0: rank 1 of 1 at 10 examples; none advances before 3 are there"


@pytest.mark.parametrize("workers", [1, 4])
def test_a_study_spends_about_the_same_on_every_bracket(workers: int) -> None:
    study = resolved(budget={"max_trials": 60}, search={"strategy": "hyperband", "sampler": "random"})
    simulation = Simulation(study, workers=workers)
    simulation.run()
    strategy = Hyperband(study.search.reduction_factor)
    spent = Counter[int]()
    for each in simulation.trials:
        spent[strategy.bracket(each.number, study.ladder)] += each.rung
    assert len(spent) == len(study.ladder)
    assert max(spent.values()) < 2 * min(spent.values())
    assert simulation.spent < 0.5 * 60 * 1000
