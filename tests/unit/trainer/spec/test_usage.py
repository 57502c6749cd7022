"""Sums of what attempts consumed, over a trial and over a study."""

import pytest

from trainer.spec import Usage, UsageSums, sum_usage

FAST = Usage(
    examples=8,
    steps=1,
    tokens=1000,
    flops=5e12,
    train_flops=4e12,
    train_hardware_flops=6e12,
    load_seconds=1.0,
    data_seconds=0.5,
    train_seconds=1.5,
    evaluate_seconds=1.0,
    snapshot_seconds=0.25,
    peak_memory_bytes=100,
    energy_joules=300.0,
    devices=4,
    peak_flops_per_second=2e12,
)
SLOW = FAST.model_copy(update={"devices": 1, "peak_flops_per_second": 1e12, "peak_memory_bytes": 700})


def test_one_attempt() -> None:
    sums = FAST.sums()
    assert sums.tokens_per_second() == 500
    assert sums.mfu() == pytest.approx(4e12 / (2.0 * 4 * 2e12))
    assert sums.hfu() == pytest.approx(6e12 / (2.0 * 4 * 2e12))
    assert sums.device_seconds == 4 * FAST.total_seconds() == 4 * 4.25
    assert sums.compute_share() == pytest.approx(2.5 / 4.25)


def test_a_study_on_different_devices_is_weighted_by_what_they_can_do() -> None:
    trial, other = sum_usage([FAST, SLOW]), sum_usage([SLOW])
    study = trial + other
    assert study == sum_usage([FAST, SLOW, SLOW])
    assert study.mfu() == pytest.approx(3 * 4e12 / (2 * 4 * 2e12 + 2 * 2 * 1e12))
    assert study.energy_joules == 900.0
    assert study.peak_memory_bytes == 700
    assert (study.steps, study.tokens, study.device_seconds) == (3, 3000, 4.25 * 6)


def test_what_one_does_not_know_the_sum_does_not_either() -> None:
    blind = FAST.model_copy(update={"energy_joules": None, "peak_flops_per_second": None})
    study = sum_usage([FAST, blind])
    assert (study.energy_joules, study.mfu(), study.hfu()) == (None, None, None)
    assert study.tokens_per_second() == 500


def test_a_lost_attempt_counts_as_time_of_which_nothing_is_known() -> None:
    study = sum_usage([FAST, Usage(lost_seconds=4.25, devices=4)])
    assert (study.device_seconds, study.lost_seconds) == (2 * 4 * 4.25, 4.25)
    assert (study.energy_joules, study.mfu()) == (300.0, FAST.sums().mfu())
    assert study.compute_share() == pytest.approx(2.5 / 8.5)


def test_attempts_that_never_ran_are_no_obstacle() -> None:
    assert sum_usage([Usage(), FAST, Usage()]) == FAST.sums()
    nothing = sum_usage([])
    assert nothing == UsageSums()
    assert (nothing.mfu(), nothing.tokens_per_second(), nothing.compute_share()) == (None, None, None)


def test_an_attempt_that_only_evaluated_needs_no_peak() -> None:
    evaluated = Usage(evaluate_seconds=2.0, flops=1e9, energy_joules=5.0)
    assert sum_usage([FAST, evaluated]).mfu() == FAST.sums().mfu()
