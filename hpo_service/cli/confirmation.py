"""A confirmation for humans."""

from typing import Any

from hpo_service.cli.output import show_table
from hpo_service.formatting.comparison import confirmed as mean_of
from hpo_service.formatting.comparison import shared_difference

Json = dict[str, Any]

_COLUMNS = (
    "candidate",
    "seeds",
    "mean loss",
    "standard deviation",
    "vs baseline, seeds of both",
    "mean test loss",
    "in the search",
    "note",
)


def sentence_of(study: Json) -> str | None:
    """What the confirmation says; None without one."""
    confirmation = study["confirmation"]
    return None if confirmation is None else str(confirmation["sentence"])


def bill_of(study: Json) -> str | None:
    """What the confirmation took, apart from the search."""
    confirmation = study["confirmation"]
    if confirmation is None:
        return None
    spent, share = confirmation["spent"]["examples"], confirmation["max_examples"]
    examples = f"{spent} of {share} examples"
    if spent > share:
        examples = (
            f"{spent} examples (its share is {share}; one run each of the best and the baseline is always allowed)"
        )
    ended = f"; {confirmation['message']}" if confirmation.get("message") else ""
    return (
        f"{confirmation['runs']} of at most {confirmation['most_runs']} runs, {examples}, apart from the search's bill"
        f"{ended}"
    )


def show_candidates(study: Json) -> None:
    """Every candidate with its mean and its difference to the baseline."""
    confirmation = study["confirmation"]
    if confirmation is not None:
        show_table(_COLUMNS, [_row(candidate, confirmation) for candidate in confirmation["candidates"]])


def confirmed_words(best: Json) -> str | None:
    """How sure the winner's loss is; None if only the search saw it."""
    confirmed = best.get("confirmed")
    if confirmed is None:
        return None
    return mean_of(confirmed["mean"], confirmed["spread"], confirmed["seeds"])


def expected_bill(report: Json) -> str | None:
    """What a confirmation would take on top of the search; None without one."""
    examples, runs = report["confirmation_examples"], report["confirmation_runs"]
    return None if examples is None else f"at most {examples} examples more ({runs} runs with new seeds)"


def _row(candidate: Json, confirmation: Json) -> list[object]:
    number = candidate["trial_number"]
    gap = next(
        (
            one
            for one in confirmation["differences"]
            if one["trial_number"] == number and _is_baseline(confirmation, one["other_trial_number"])
        ),
        None,
    )
    return [
        f"trial {number}",
        candidate["seeds"],
        _four(candidate["mean"]),
        _four(candidate["spread"]),
        shared_difference(gap["mean"], gap["half_width"], gap["seeds"]) if gap else "-",
        _four(candidate["test_loss"]),
        f"{_four(candidate['searched_loss'])} after {candidate['searched_examples']}",
        "; ".join(part for part in ("baseline" if candidate["baseline"] else "", candidate["out"] or "") if part),
    ]


def _is_baseline(confirmation: Json, number: int) -> bool:
    return any(one["trial_number"] == number and one["baseline"] for one in confirmation["candidates"])


def _four(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
