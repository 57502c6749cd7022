"""What humans read of decisions."""

from typing import Any

from hpo_service.cli.insight import DECISION_COLUMNS, decision_row, pareto_row


def decision(**changes: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "number": 4, "trial_number": 3, "from_examples": 0, "until_examples": 60, "rule": None, "numbers": {},
        "outcome": "running", "loss": None, "reason": "it was enqueued",
    }  # fmt: skip
    return facts | changes


def test_a_decision_without_numbers_is_dashes() -> None:
    row = dict(zip(DECISION_COLUMNS, decision_row(decision()), strict=True))
    assert row["trial"] == "3 (new)"
    assert row["loss"] == "running"
    assert row["predicted"] is row["runner-up"] is row["cost"] is None


def test_a_decision_shows_what_it_was_weighed_against() -> None:
    numbers = {
        "predicted_loss": 2.01234, "predicted_sd": 0.0312, "runner_up": "trial 7",
        "runner_up_expected_improvement": 0.0123456, "runner_up_cost_in_full_trials": 0.5,
    }  # fmt: skip
    shown = decision_row(decision(numbers=numbers, outcome="done", loss=2.5, from_examples=30, rule="improvement"))
    row = dict(zip(DECISION_COLUMNS, shown, strict=True))
    assert (row["trial"], row["loss"], row["rule"]) == ("3", 2.5, "improvement")
    assert row["predicted"] == "2.0123 ± 0.031"
    assert row["runner-up"] == "trial 7 + 0.0123 for 0.5"


def test_a_trial_on_the_front_says_how_far_it_is() -> None:
    point = {
        "trial_number": 3, "provisional": True, "examples": 60, "total_examples": 1000,
        "values": {"eval_loss": 2.5, "cost_usd": 0.1}, "parameters": {"lora_r": 8},
    }  # fmt: skip
    names = ["eval_loss", "cost_usd"]
    assert pareto_row(point, names, ["lora_r"]) == [3, 2.5, 0.1, "provisional, at 60 of 1000", 8]
    assert pareto_row({**point, "provisional": False}, names, [])[3] == "complete"
