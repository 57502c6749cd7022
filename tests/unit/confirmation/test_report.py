"""The numbers of a confirmation and its sentence."""

import pytest

from hpo_service.best import best_trial
from hpo_service.confirmation.report import Report, RunFacts, report, sentence
from tests.unit.confirmation.test_race import plan
from tests.unit.test_best import complete

SEEDS = (101, 102, 103)


def runs(
    losses: dict[int, list[float]],
    *,
    cost: dict[int, float] | None = None,
    test_loss: dict[int, float] | None = None,
) -> list[RunFacts]:
    """Complete runs with the first seeds; `cost` and `test_loss` by candidate."""
    pairs = [(candidate, *run) for candidate, values in losses.items() for run in zip(SEEDS, values, strict=False)]
    return [
        RunFacts(
            trial_number=number,
            candidate=candidate,
            seed=seed,
            state="complete",
            loss=loss,
            cost=(cost or {}).get(candidate),
            test_loss=(test_loss or {}).get(candidate),
        )
        for number, (candidate, seed, loss) in enumerate(pairs)
    ]


TIE = {7: [2.000, 2.002, 2.001], 3: [2.001, 2.002, 2.003], 0: [2.2]}


def tie(cost: dict[int, float] | None = None, test_loss: dict[int, float] | None = None) -> Report:
    return report(plan(7, 3), runs(TIE, cost=cost, test_loss=test_loss))


def test_the_sentence_that_a_person_needs() -> None:
    said = sentence(tie(cost={7: 10.0, 3: 6.0, 0: 10.0}), over=True)
    assert said.startswith("Trial 7 beats your current configuration by 0.2000 ± 0.0")
    assert "(2.0010 ± 0.0010 over 3 seeds)" in said
    assert said.endswith("Trials 3 and 7 cannot be told apart. Trial 3 is 40% cheaper to train.")


def test_test_rows_are_told() -> None:
    said = sentence(tie(test_loss={7: 1.5, 3: 1.6, 0: 1.75}), over=True)
    assert "On the test rows trial 7 has a loss of 1.5000, your current configuration 1.7500." in said


def test_nothing_beats_the_baseline() -> None:
    found = report(plan(7, 3), runs({0: [2.0, 2.001, 2.002], 7: [2.3], 3: [2.4]}))
    assert (
        sentence(found, over=True)
        == "No configuration beats your current one, which has a loss of 2.0010 ± 0.0010 over 3 seeds."
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
    found = tie()
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
    assert best.improvement is not None
    assert best.improvement.baseline_loss == pytest.approx(2.2)
    assert best.improvement.relative == pytest.approx((2.2 - 2.001) / 2.2, abs=1e-3)
