"""A confirmation as humans read it."""

from typing import Any

import pytest

from hpo_service.cli.confirmation import bill_of, confirmed_words, expected_bill, sentence_of, show_candidates
from hpo_service.cli.views import best_sentence
from tests.unit.cli.test_views import best, improvement


def candidate(number: int, **changes: Any) -> dict[str, Any]:
    facts = {
        "trial_number": number,
        "baseline": False,
        "searched_loss": 1.9,
        "searched_examples": 100,
        "seeds": 3,
        "mean": 2.0,
        "spread": 0.01,
        "test_loss": None,
        "out": None,
    }
    return facts | changes


STUDY = {
    "confirmation": {
        "sentence": "Trial 7 beats your current configuration by 0.2000 ± 0.0100 loss.",
        "runs": 4,
        "most_runs": 6,
        "max_examples": 800,
        "spent": {"examples": 400},
        "candidates": [
            candidate(7),
            candidate(0, baseline=True, mean=2.2, seeds=1, spread=None, out="behind trial 7"),
        ],
        "differences": [{"trial_number": 7, "other_trial_number": 0, "mean": -0.2, "half_width": 0.01, "seeds": 1}],
    }
}


def test_the_table_has_every_candidate_against_the_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    show_candidates(STUDY)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    row = next(line for line in lines if "trial 7" in line and "behind" not in line)
    assert "-0.2000 ± 0.0100 (1 seed)" in row
    assert "±" not in row.replace("-0.2000 ± 0.0100", ""), "a standard deviation is no interval"
    assert "1.9000 after 100" in row
    assert any("baseline; behind trial 7" in line for line in lines)


def test_the_bill_is_apart() -> None:
    assert bill_of(STUDY) == "4 of at most 6 runs, 400 of 800 examples, apart from the search's bill"
    assert sentence_of(STUDY) == STUDY["confirmation"]["sentence"]


def test_a_bill_above_its_share_says_why() -> None:
    confirmation = STUDY["confirmation"] | {"spent": {"examples": 1000}}
    assert bill_of({"confirmation": confirmation}) == (
        "4 of at most 6 runs, 1000 examples (its share is 800; one run each of the best and the baseline is always "
        "allowed), apart from the search's bill"
    )


def test_without_a_confirmation_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    study = {"confirmation": None}
    show_candidates(study)
    assert (sentence_of(study), bill_of(study), capsys.readouterr().out) == (None, None, "")
    assert expected_bill({"confirmation_examples": None, "confirmation_runs": None}) is None


def test_a_confirmed_best_says_how_sure_it_is() -> None:
    known = {"mean": 2.0, "spread": 0.01, "seeds": 3}
    assert confirmed_words(best(confirmed=known)) == ("mean loss 2.0000 over 3 new seeds, standard deviation 0.0100")
    assert confirmed_words(best(confirmed={"mean": 2.0, "spread": None, "seeds": 1})) == (
        "mean loss 2.0000 over 1 new seed"
    )
    said = best_sentence(best(confirmed=known, improvement=improvement(seeds=1, baseline_examples=160)))
    assert said == (
        "trial 3, mean loss 2.0000 over 3 new seeds, standard deviation 0.0100, 25.0% better than the baseline (3.0000 "
        "against 4.0000, each at its own end: 500 and 160 examples, over the 1 new seed that both have)"
    )


def test_what_it_would_take() -> None:
    assert expected_bill({"confirmation_examples": 640, "confirmation_runs": 2}) == (
        "at most 640 examples more (2 runs with new seeds)"
    )
