"""The sentence that a hurried reader takes away."""

from dataclasses import replace
from typing import Any

import pytest

from hpo_service.reports.sections.course import savings
from hpo_service.reports.sections.recommendation import sentence
from hpo_service.storage.queries.reports import Saved
from tests.reported import COMPARISON, best, spent, study, study_report

CONFIRMATION = {
    "state": "completed", "message": "", "sentence": "Trial 1 beats your current configuration by 0.2.", "runs": 4,
    "most_runs": 6, "max_examples": 2000, "spent": spent(), "candidates": [], "differences": [], "dashboard": None,
}  # fmt: skip
CONFIRMED = {"mean": 1.8, "spread": 0.01, "seeds": 3, "test_loss": None, "shared_seeds": 3, "difference": -0.2,
             "half_width": 0.05}  # fmt: skip


def said(study_changes: dict[str, Any] | None = None, **changes: Any) -> str:
    return sentence(study_report(study=study(**(study_changes or {})), **changes))


def test_a_better_trial_is_recommended() -> None:
    found = "trial 1 has the lowest loss of those that were trained to their end, 1.8000. Better"
    assert said().startswith(f"Use the parameters of trial 1: {found}")
    assert said().endswith("That is 10.0%.")


def test_what_may_be_luck_is_to_be_confirmed() -> None:
    unsure = replace(COMPARISON, half_width=0.3)
    assert said(comparison=unsure, verdict="Not known.").startswith("Confirm before you change anything")


def test_the_baseline_is_kept_where_it_won() -> None:
    worse = {"baseline_trial": 0, "examples": 200, "baseline_examples": 200, "baseline_loss": 1.7, "loss": 1.8,
             "difference": 0.1, "relative": -0.06, "seeds": 0}  # fmt: skip
    found = said({"best": best(improvement=worse)}, comparison=replace(COMPARISON, difference=0.1))
    assert found.startswith("Keep your current configuration: of what was searched trial 1 has the lowest loss")


def test_without_a_baseline_the_best_is_used() -> None:
    assert "no baseline" in said({"best": best(improvement=None)}, comparison=None)


@pytest.mark.parametrize(("state", "word"), [("running", "Wait"), ("completed", "Take care")])
def test_a_provisional_leader_is_no_winner(state: str, word: str) -> None:
    assert said({"state": state, "best": best(provisional=True)}).startswith(word)


@pytest.mark.parametrize(("state", "end"), [("running", "yet."), ("failed", "the study has ended.")])
def test_nothing_is_recommended_before_the_first_rung(state: str, end: str) -> None:
    assert said({"state": state, "best": None}, comparison=None).endswith(end)


@pytest.mark.parametrize(
    ("half_width", "advice"), [(0.05, "Use the parameters of trial 1."), (0.3, "Keep your current configuration.")]
)
def test_a_confirmation_decides(half_width: float, advice: str) -> None:
    confirmed = {"best": best(confirmed=CONFIRMED), "confirmation": CONFIRMATION}
    found = said(confirmed, comparison=replace(COMPARISON, half_width=half_width, seeds=3))
    assert found == f"{advice} Trial 1 beats your current configuration by 0.2."


def test_savings_say_what_they_are_measured_against() -> None:
    assert "1 trial did not train 160 examples, 20% of what training the same trials" in savings(study_report())
    nothing = study_report(saved=Saved(trials=0, examples=0, unmeasured=0, seconds=0.0))
    assert savings(nothing).startswith("Nothing was saved")
    unmeasured = study_report(saved=Saved(trials=3, examples=160, unmeasured=2, seconds=5.0))
    assert "2 trials without a measured speed count as nothing" in savings(unmeasured)
