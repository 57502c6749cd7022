"""The numbers of a confirmation and its sentence."""

from typing import Any

import pytest

from hpo_service.search.best import Searched, best_trial
from hpo_service.search.confirmation.report import report
from hpo_service.search.confirmation.runs import RunFacts, run_facts
from hpo_service.search.confirmation.sentence import sentence
from tests.unit.search.confirmation.test_race import plan
from tests.unit.search.test_best import complete

SEEDS = (101, 102, 103)


def runs(
    losses: dict[int, list[float]],
    *,
    flops: dict[int, float] | None = None,
    seconds: dict[int, float] | None = None,
    test_losses: dict[int, list[float]] | None = None,
) -> list[RunFacts]:
    """Complete runs with the first seeds; `flops` and `seconds` by candidate."""
    pairs = [(candidate, *run) for candidate, values in losses.items() for run in zip(SEEDS, values, strict=False)]
    return [
        RunFacts(
            trial_number=number,
            candidate=candidate,
            seed=seed,
            state="complete",
            loss=loss,
            flops=(flops or {}).get(candidate),
            seconds=(seconds or {}).get(candidate),
            test_loss=None if test_losses is None else test_losses[candidate][SEEDS.index(seed)],
        )
        for number, (candidate, seed, loss) in enumerate(pairs)
    ]


TIE = {7: [2.000, 2.002, 2.001], 3: [2.001, 2.002, 2.003], 0: [2.2]}


def said_of(losses: dict[int, list[float]], *searched: int, **known: Any) -> str:
    return sentence(report(plan(*searched), runs(losses, **known)), over=True)


def test_the_sentence_that_a_person_needs() -> None:
    said = said_of(TIE, 7, 3, flops={7: 10.0, 3: 6.0, 0: 10.0})
    assert said.startswith("Trial 7 beats your current configuration by 0.2000 ± 0.0")
    assert (
        " loss over the one seed that both have; its loss is 2.0010 (mean over 3 seeds, standard deviation 0.0010)."
        in said
    )
    assert said.endswith("Trials 3 and 7 cannot be told apart. Trial 3 is 40% cheaper to train.")


@pytest.mark.parametrize(
    ("flops", "seconds", "share"),
    [
        ({7: 10.0, 3: 6.0, 0: 9.0}, {7: 5.0, 3: 90.0, 0: 1.0}, "40%"),
        (None, {7: 5.0, 3: 4.0, 0: 1.0}, "20%"),
        ({7: 10.0, 0: 9.0}, {7: 5.0, 3: 4.0, 0: 1.0}, "20%"),
        ({7: 10.0, 3: 9.8, 0: 9.0}, {7: 5.0, 3: 1.0, 0: 1.0}, None),
        (None, None, None),
    ],
)
def test_cheaper_is_less_computing_and_only_else_less_time(
    flops: dict[int, float] | None, seconds: dict[int, float] | None, share: str | None
) -> None:
    said = said_of(TIE, 7, 3, flops=flops, seconds=seconds)
    assert (f"Trial 3 is {share} cheaper to train." in said) == (share is not None)
    assert ("cheaper" in said) == (share is not None)


def test_a_cheaper_trial_that_may_be_no_better_than_the_baseline_says_so() -> None:
    losses = {7: [2.000, 2.001, 2.002], 3: [2.016, 2.017, 2.018], 0: [2.031, 2.032, 2.033]}
    said = said_of(losses, 7, 3, flops={7: 10.0, 3: 6.0, 0: 10.0})
    assert said.startswith("Trial 7 beats your current configuration")
    assert "Trials 3 and 7 cannot be told apart" in said
    assert said.endswith("Trial 3 is 40% cheaper to train, but it is not known to beat your current configuration.")


def folded(candidate: int, loss: float, wave: float) -> list[RunFacts]:
    """Runs whose folds go up and down by `wave`: candidates that share it differ the same on every fold."""
    return [
        RunFacts(
            trial_number=10 * candidate + index,
            candidate=candidate,
            seed=seed,
            state="complete",
            loss=loss,
            folds=tuple(loss + (wave if fold % 2 else -wave) for fold in range(8)),
        )
        for index, seed in enumerate(SEEDS)
    ]


def test_two_that_are_tied_with_the_winner_may_be_told_apart() -> None:
    """The winner is good on other evaluation rows than the two: no pair of it is sure, theirs is."""
    found = report(plan(7, 3, 5, baseline=None), [*folded(7, 2.0, 0.5), *folded(3, 2.02, 0.0), *folded(5, 2.06, 0.0)])
    apart = found.difference(5, 3)
    assert apart is not None
    assert apart.separated
    assert apart.mean == pytest.approx(0.04)
    said = sentence(found, over=True)
    assert "Trial 7 cannot be told apart from trials 3 and 5, but trial 3 beats trial 5 by 0.0400 ± " in said


def test_what_was_stopped_before_it_could_be_put_out_is_no_tie() -> None:
    losses = {7: [2.0, 2.0], 3: [2.3, 2.3], 0: [2.001, 2.001]}
    found = report(plan(7, 3, seeds=2), [run for run in runs(losses) if (run.candidate, run.seed) != (0, 102)])
    assert "Trials" not in sentence(found, over=True)


def test_a_tie_with_the_baseline_is_told() -> None:
    said = said_of({0: [2.000, 2.001, 2.002], 7: [2.001, 2.003, 2.002], 3: [2.4]}, 7, 3)
    assert said.startswith("No configuration is known to beat your current one, which has a loss of 2.0010")
    assert said.endswith("Trial 7 cannot be told apart from it.")


def test_who_got_no_examples_is_told() -> None:
    said = sentence(report(plan(7, 3, 5, max_examples=200), runs({7: [1.5], 0: [2.0]})), over=True)
    assert "No examples were left for trials 3 and 5." in said


def test_test_losses_are_compared_over_the_seeds_that_both_have() -> None:
    """The second and third seed are hard, and the baseline was out by then."""
    said = said_of(TIE, 7, 3, test_losses={7: [1.5, 1.9, 1.9], 3: [1.6, 1.6, 1.6], 0: [1.75]})
    assert (
        "On the test rows trial 7 has a loss of 1.5000 and your current configuration 1.7500, over the one seed that "
        "both have." in said
    )


def test_a_run_is_what_is_recorded_of_its_trial() -> None:
    attrs = {"candidate": 7, "seed": 101, "flops_per_example": 5.0, "total_examples": 20, "seconds": 3.0}
    ended = run_facts(4, "COMPLETE", attrs, {20: 2.0}, {20: (1.9, 2.1)})
    assert (ended.loss, ended.folds, ended.flops, ended.seconds) == (2.0, (1.9, 2.1), 100.0, 3.0)
    assert ended.result is not None
    states = {name: run_facts(4, name, attrs, {}, {}).state for name in ("RUNNING", "FAIL", "PRUNED", "failed")}
    assert states == {"RUNNING": "running", "FAIL": "failed", "PRUNED": "failed", "failed": "failed"}
    assert run_facts(4, "FAIL", attrs, {}, {}).result is None


def test_a_run_that_was_stopped_with_the_confirmation_is_no_failure() -> None:
    """A deadline in the midst of the second round: its candidate is still in the race."""
    attrs = {"candidate": 7, "seed": 102, "outcome": "preempted"}
    stopped = run_facts(9, "FAIL", attrs, {}, {})
    assert (stopped.state, stopped.counts) == ("stopped", False)
    found = report(plan(7), [*runs({7: [2.0], 0: [2.001]}), stopped])
    assert found.ended is None
    assert found.standing(7).out is None
    assert "cannot be told apart" in sentence(found, over=True)


def test_nothing_beats_the_baseline() -> None:
    found = report(plan(7, 3), runs({0: [2.0, 2.001, 2.002], 7: [2.3], 3: [2.4]}))
    assert (
        sentence(found, over=True)
        == "No configuration beats your current one, which has a loss of 2.0010 (mean over 3 seeds, standard deviation "
        "0.0010)."
    )
    assert [one.trial_number for one in found.finalists] == [0]


def test_a_gain_within_the_noise_is_no_gain() -> None:
    said = sentence(report(plan(7), runs({7: [2.000, 2.001, 2.000], 0: [2.001, 2.000, 2.002]})), over=True)
    assert said.startswith("Trial 7 and your current configuration cannot be told apart (0.00")
    assert "no configuration is known to beat yours" in said


def test_one_seed_says_what_it_does_not_know() -> None:
    said = sentence(report(plan(7, max_examples=200), runs({7: [1.5], 0: [2.0]})), over=True)
    assert said.startswith("Trial 7 beats your current configuration by 0.5000")
    assert said.endswith("With one seed each, how much seeds matter is assumed and not measured.")


def test_means_spreads_and_differences() -> None:
    found = report(plan(7, 3), runs(TIE))
    by_number = {one.trial_number: one for one in found.standings}
    assert [one.trial_number for one in found.standings] == [7, 3, 0]
    assert by_number[7].mean == pytest.approx(2.001)
    assert by_number[7].spread == pytest.approx(0.001)
    assert (by_number[0].seeds, by_number[0].spread) == (1, None)
    assert by_number[0].out is not None
    pairs = {(one.candidate, one.other): one for one in found.differences}
    assert set(pairs) == {(7, 3), (7, 0), (3, 0)}
    assert pairs[7, 0].mean == pytest.approx(-0.2)
    assert pairs[7, 0].separated
    assert not pairs[7, 3].separated


def test_before_a_round_is_through_nobody_leads() -> None:
    started = [RunFacts(trial_number=0, candidate=7, seed=101, state="running")]
    found = report(plan(7, 3), started)
    assert found.finalists == ()
    assert sentence(found, over=False) == "Nothing is confirmed yet."
    assert "before every candidate had a run" in sentence(found, over=True)


def test_failed_runs_confirm_nothing() -> None:
    failed = [
        RunFacts(trial_number=number, candidate=candidate, seed=101, state="failed")
        for number, candidate in enumerate((7, 0))
    ]
    assert sentence(report(plan(7), failed), over=True) == "Nothing could be confirmed: no run ended well."


def test_the_best_is_the_lowest_confirmed_mean() -> None:
    trials = [complete(0, 2.1, baseline=True), complete(3, 1.99), complete(7, 1.95)]
    lucky = report(plan(7, 3), runs({7: [2.004, 2.006, 2.005], 3: [2.001, 2.002, 2.000], 0: [2.2]}))
    best = best_trial(trials, lucky.finalists)
    assert best is not None
    assert best.trial_number == 3
    assert best.loss == pytest.approx(2.001)
    assert not best.provisional
    assert best.confirmed is not None
    assert best.confirmed.seeds == 3
    assert best.searched == Searched(loss=1.99, examples=100)
    assert best.improvement is not None
    assert best.improvement.baseline_loss == pytest.approx(2.2)
    assert best.improvement.relative == pytest.approx((2.2 - 2.001) / 2.2, abs=1e-3)


def test_the_winner_is_compared_with_a_baseline_of_fewer_seeds_over_those_that_both_have() -> None:
    """The baseline left after the first seed, on which the winner was better than on average."""
    trials = [complete(0, 2.1, baseline=True), complete(7, 1.95, at=320)]
    tested = {7: [1.5, 1.9, 1.9], 3: [1.6, 1.6, 1.6], 0: [1.75]}
    found = report(plan(7, 3), runs(TIE, test_losses=tested))
    best = best_trial(trials, found.finalists)
    assert best is not None
    assert best.confirmed is not None
    assert best.improvement is not None
    assert (best.confirmed.seeds, best.improvement.seeds, best.confirmed.shared_seeds) == (3, 1, 1)
    assert best.loss == pytest.approx(2.001)
    assert (best.improvement.loss, best.improvement.baseline_loss) == (2.0, 2.2)
    assert best.improvement.difference == pytest.approx(best.confirmed.difference)
    assert (best.improvement.examples, best.improvement.baseline_examples) == (320, 100)
    assert best.confirmed.test_loss == pytest.approx((1.5 + 1.9 + 1.9) / 3)


def test_a_comparison_has_one_interval() -> None:
    """That of the moment when the baseline left is no longer so once others have more runs."""
    found = report(plan(7, 3), runs(TIE))
    out = found.standing(0).out
    assert out is not None
    assert "±" not in out.words


def test_the_sentence_says_where_the_two_ended_at_different_numbers_of_examples() -> None:
    even = plan(7)
    longer = even.candidate(7).model_copy(update={"run_examples": 320})
    uneven = even.model_copy(update={"candidates": (longer, even.candidate(0))})
    losses = {7: [1.5, 1.5, 1.5], 0: [2.0]}
    assert "both have, each at its own end: 320 and 100 examples; its loss is" in sentence(
        report(uneven, runs(losses)), over=True
    )
    assert "each at its own end" not in sentence(report(even, runs(losses)), over=True)
