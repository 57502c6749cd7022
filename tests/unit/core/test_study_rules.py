"""States, rungs, budgets."""

from datetime import UTC, datetime, timedelta

import pytest

from hpo_service.core.errors import Conflict
from hpo_service.core.study_rules import (
    TERMINAL,
    Limits,
    Need,
    Spent,
    StudyState,
    cost_usd,
    exhausted,
    ladder,
    nearly_spent,
    require_transition,
    trial_ladder,
    unaffordable,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def test_rungs_grow_by_the_factor_and_end_at_the_budget() -> None:
    assert ladder(1000, 0.06, 3) == (60, 180, 540, 1000)


def test_a_rung_just_below_the_end_is_left_out() -> None:
    assert ladder(1000, 0.3, 3) == (300, 1000)


@pytest.mark.parametrize("examples", [1, 2, 7])
def test_the_smallest_budgets_have_a_ladder(examples: int) -> None:
    rungs = ladder(examples, 0.06, 3)
    assert rungs[-1] == examples
    assert list(rungs) == sorted(set(rungs))


def test_a_shorter_trial_adds_its_own_end() -> None:
    assert trial_ladder((60, 180, 540, 1000), 500) == (60, 180, 500)
    assert trial_ladder((60, 180, 540, 1000), 540) == (60, 180, 540)


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_an_ended_study_stays_ended(state: StudyState) -> None:
    for wanted in StudyState:
        with pytest.raises(Conflict, match=r"it has ended"):
            require_transition("s", state, wanted)


def test_a_refused_transition_names_what_is_possible() -> None:
    with pytest.raises(Conflict, match=r"'s' is stopping and cannot become paused.*completed"):
        require_transition("s", StudyState.STOPPING, StudyState.PAUSED)


@pytest.mark.parametrize(
    ("limits", "spent", "reason"),
    [
        (Limits(max_trials=1, max_examples=10), Spent(examples=10), "10 of 10 examples"),
        (Limits(max_trials=1, max_gpu_hours=1), Spent(seconds=3600), "1.00 of 1 GPU-hours"),
        (Limits(max_trials=1, max_cost_usd=5), Spent(usd=5.5), "5.50 of 5 USD"),
        (Limits(max_trials=1, deadline=NOW), Spent(), "deadline"),
    ],
)
def test_a_spent_budget_says_which(limits: Limits, spent: Spent, reason: str) -> None:
    assert reason in (exhausted(limits, spent, NOW) or "")


def test_what_is_left_may_be_spent() -> None:
    limits = Limits(max_trials=1, max_examples=10, max_gpu_hours=1, max_cost_usd=5, deadline=NOW + timedelta(days=1))
    assert exhausted(limits, Spent(examples=9, seconds=3599, usd=4.9), NOW) is None


def test_money_is_worker_hours() -> None:
    assert cost_usd(1800, 8, 2.5) == 10.0


RESERVED = Need(examples=200, seconds=600.0, usd=1.0)


@pytest.mark.parametrize(
    ("limits", "need", "reason"),
    [
        (Limits(max_trials=9, max_examples=1000), Need(examples=301), "takes 301 examples, and 300 of 1000 are left"),
        (Limits(max_trials=9, max_gpu_hours=1.0), Need(seconds=1201.0), "GPU-hours, and 0.3333 of 1 are left"),
        (Limits(max_trials=9, max_cost_usd=5.0), Need(usd=2.1), "takes 2.1 USD, and 2 of 5 are left"),
        (Limits(max_trials=9, deadline=NOW + timedelta(minutes=5)), Need(), "takes 10 minutes, and the study ends"),
        (Limits(max_trials=9, max_wall_hours=1.1), Need(), "takes 10 minutes, and the study ends"),
        (Limits(max_trials=9, max_wall_hours=0.9), Need(), "budget.max_wall_hours (0.9) are over"),
    ],
)
def test_a_slice_is_weighed_with_those_that_run(limits: Limits, need: Need, reason: str) -> None:
    spent, begun = Spent(examples=500, seconds=1800.0, usd=2.0), NOW - timedelta(hours=1)
    refusal = unaffordable(limits, spent, RESERVED, need, wall_seconds=600.0, now=NOW, started_at=begun)
    assert reason in (refusal or "")


def test_what_fits_exactly_is_not_refused() -> None:
    limits = Limits(max_trials=9, max_examples=1000, max_gpu_hours=1.0, max_cost_usd=5.0, max_wall_hours=2.0)
    spent, need = Spent(examples=500, seconds=1800.0, usd=2.0), Need(examples=300, seconds=1200.0, usd=2.0)
    assert unaffordable(limits, spent, RESERVED, need, wall_seconds=60.0, now=NOW, started_at=NOW) is None


def test_which_cap_came_near_its_end() -> None:
    limits = Limits(max_trials=9, max_examples=100, max_cost_usd=10)
    assert nearly_spent(limits, Spent(examples=70), Spent(examples=79, trials=9)) is None
    assert nearly_spent(limits, Spent(examples=79), Spent(examples=80)) == "80 of 100 examples are spent"
    assert nearly_spent(limits, Spent(examples=80), Spent(examples=99)) is None
    assert nearly_spent(limits, Spent(usd=7.5), Spent(usd=8.25)) == "8.25 of 10 USD are spent"
    hours = Limits(max_trials=9, max_gpu_hours=2)
    assert nearly_spent(hours, Spent(seconds=3600), Spent(seconds=6000)) == "1.667 of 2 GPU-hours are spent"
