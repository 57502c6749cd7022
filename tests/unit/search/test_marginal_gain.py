"""What more compute would be expected to buy."""

import math

import pytest

from hpo_service.core.study_rules import Spent
from hpo_service.search.marginal_gain import outlook

NUMBERS = {"expected_improvement": 0.02, "cost_in_full_trials": 0.5, "best_loss": 2.0}
SPENT = Spent(examples=10_000, seconds=20 * 3600.0, usd=40.0)


def test_a_small_purchase_brings_the_rate_of_the_last_decision() -> None:
    """20 GPU-hours for 10 trials of 1000 examples: half a trial takes one hour and is expected to bring 0.02."""
    found = outlook(NUMBERS, SPENT, 1000)
    assert found is not None
    tenth = found.tenth_of_the_bill
    assert tenth.gpu_hours == pytest.approx(2)
    assert tenth.usd == pytest.approx(4)
    assert tenth.expected_improvement == pytest.approx(0.02 * 20 * math.log(1.1))


def test_a_large_purchase_brings_less_and_never_more_than_the_loss() -> None:
    found = outlook(NUMBERS, SPENT, 1000)
    assert found is not None
    assert found.ten_gpu_hours is not None
    assert found.ten_gpu_hours.expected_improvement < 10 * 0.02
    wild = outlook({**NUMBERS, "expected_improvement": 1e6}, SPENT, 1000)
    assert wild is not None
    assert wild.ten_gpu_hours is not None
    assert wild.ten_gpu_hours.expected_improvement == 2.0


def test_without_a_price_there_is_no_bill() -> None:
    found = outlook(NUMBERS, Spent(examples=10, seconds=1.0), 1000)
    assert found is not None
    assert found.tenth_of_the_bill.usd is None


def test_nothing_is_said_of_what_is_too_far_to_see() -> None:
    assert (few := outlook(NUMBERS, Spent(examples=10, seconds=3599.0), 1000)) is not None
    assert few.ten_gpu_hours is None
    assert (enough := outlook(NUMBERS, Spent(examples=10, seconds=3600.0), 1000)) is not None
    assert enough.ten_gpu_hours is not None


@pytest.mark.parametrize(
    ("numbers", "spent"),
    [({}, SPENT), ({**NUMBERS, "cost_in_full_trials": None}, SPENT), (NUMBERS, Spent()), (NUMBERS, Spent(examples=5))],
)
def test_what_is_not_known_is_not_told(numbers: dict[str, float], spent: Spent) -> None:
    assert outlook(numbers, spent, 1000) is None
