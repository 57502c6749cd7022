"""The race: clear losers leave early, ties go on, the share holds."""

from collections.abc import Callable

import pytest

from hpo_service.search.confirmation.race import Course, Exit, Results, course, most_runs
from hpo_service.search.confirmation.statistics import RunResult
from hpo_service.spec import Candidate, ConfirmationPlan
from trainer.spec import Parameters

Loss = Callable[[int, int], float | None]


def plan(*numbers: int, baseline: int | None = 0, seeds: int = 3, max_examples: int = 100_000) -> ConfirmationPlan:
    """Candidates whose runs take 100 examples; the baseline comes last, as in the search's order."""
    everyone = (*numbers, *(() if baseline is None else (baseline,)))
    candidates = tuple(
        Candidate(
            trial_number=number,
            baseline=number == baseline,
            sampled={},
            parameters=Parameters(),
            loss=2.0,
            examples=100,
            run_examples=100,
        )
        for number in everyone
    )
    return ConfirmationPlan(
        candidates=candidates, seeds=tuple(range(101, 101 + seeds)), max_examples=max_examples, ended="done"
    )


def run(race: ConfirmationPlan, loss: Loss) -> tuple[Course, Results]:
    """Run every round to its end."""
    found: dict[tuple[int, int], RunResult | None] = {}
    while (state := course(race, found)).ended is None:
        current = state.rounds[-1]
        for number in current.field:
            value = loss(number, current.seed)
            result = None if value is None else RunResult(candidate=number, seed=current.seed, loss=value)
            found[number, current.seed] = result
    return state, found


def test_the_best_and_the_baseline_come_first() -> None:
    state = course(plan(7, 3, 5), {})
    assert state.rounds[-1].field == (7, 0, 3, 5)
    assert state.ended is None


def test_a_clear_loser_leaves_after_one_seed_and_ties_get_all() -> None:
    losses = {7: 2.0, 3: 2.001, 5: 2.5, 0: 2.4}
    state, found = run(plan(7, 3, 5), lambda number, seed: losses[number] + 0.0001 * (seed % 2))
    assert sorted(found) == [(0, 101), *((3, seed) for seed in (101, 102, 103)), (5, 101)] + [
        (7, seed) for seed in (101, 102, 103)
    ]
    assert state.ended == "every candidate that is left has 3 seeds"
    assert state.out[5].words == "clearly behind trial 7 after one seed"
    assert "after one seed" in state.out[0].words
    assert 3 not in state.out


def test_the_race_ends_when_one_is_left() -> None:
    losses = {7: 2.0, 3: 2.4, 0: 2.5}
    state, found = run(plan(7, 3), lambda number, _seed: losses[number])
    assert len(found) == 3
    assert state.ended == "no other candidate keeps up with trial 7"


def test_who_did_not_run_is_not_said_to_be_beaten() -> None:
    """ "No examples were left for trial 3" and "no other candidate keeps up" contradict each other."""
    losses = {7: 2.0, 3: 1.0, 0: 2.5}
    state, found = run(plan(7, 3, max_examples=200), lambda number, _seed: losses[number])
    assert sorted(found) == [(0, 101), (7, 101)]
    assert state.out[3].why == "unpaid"
    assert state.ended == "of the candidates that examples were left for, no other keeps up with trial 7"


def test_a_run_that_fails_puts_its_candidate_out() -> None:
    state, found = run(plan(7, 3), lambda number, seed: None if (number, seed) == (3, 102) else 2.0)
    assert state.out == {3: Exit("failed", "it failed with seed 102")}
    assert len(found) == 3 + 3 + 2


def test_when_every_run_fails_the_race_ends() -> None:
    state, _ = run(plan(7), lambda _number, _seed: None)
    assert state.ended == "no run reached its end"


def test_one_candidate_alone_gets_all_seeds() -> None:
    state, found = run(plan(7, baseline=None), lambda _number, seed: 2.0 + seed / 1000)
    assert len(found) == 3
    assert state.out == {}


@pytest.mark.parametrize(
    ("share", "runs"), [(0, 2), (200, 2), (399, 3), (400, 4), (599, 4), (600, 6), (700, 7), (800, 8), (1200, 12)]
)
def test_the_share_is_kept_but_for_the_first_pair(share: int, runs: int) -> None:
    race = plan(7, 3, 5, max_examples=share)
    _, found = run(race, lambda number, seed: 2.0 + 0.0001 * ((number * seed) % 3))
    assert sum(100 for _ in found) <= max(share, 200)
    assert len(found) == runs
    assert most_runs(race) == runs


def test_the_order_in_which_runs_end_does_not_matter() -> None:
    race = plan(7, 3, 5)
    _, found = run(race, lambda number, seed: 2.0 + 0.003 * ((number * seed) % 5))
    assert course(race, dict(reversed(list(found.items())))) == course(race, found)
