"""What humans read of the service's answers."""

from typing import Any

import pytest

from hpo_service.cli.output import make_table, text
from hpo_service.cli.views import best_sentence, duration, gain_sentence, searched_names, standing
from hpo_service.cli.watch import describe
from hpo_service.client import StudyEvent


def improvement(**changes: Any) -> dict[str, Any]:
    return {"baseline_trial": 0, "examples": 500, "baseline_loss": 4.0, "loss": 3.0, "relative": 0.25} | changes


def best(**changes: Any) -> dict[str, Any]:
    facts = {"trial_number": 3, "loss": 3.0, "examples": 500, "provisional": False, "improvement": improvement()}
    return facts | changes


def test_numbers_are_short_and_nothing_is_a_dash() -> None:
    assert [text(value) for value in (None, 0.000123456, 12.0, 3, "x", {"a": 1.0})] == [
        "-", "0.00012346", "12", "3", "x", "a=1",
    ]  # fmt: skip


def test_the_gain_is_said_in_words() -> None:
    assert gain_sentence(best()).startswith("25.0% better than the baseline (3.0000 against 4.0000 after 500")
    assert "5.0% worse" in gain_sentence(best(improvement=improvement(relative=-0.05)))
    assert gain_sentence(best(improvement=None)) == "no baseline to compare with"
    assert "baseline itself" in gain_sentence(best(trial_number=0))


def test_a_provisional_best_says_so() -> None:
    assert "(provisional)" in best_sentence(best(provisional=True))
    assert best_sentence(None) == "none yet"


def test_only_parameters_that_differ_are_shown() -> None:
    trials = [{"parameters": {"a": 1, "b": 2}}, {"parameters": {"a": 1, "b": 3, "c": 1}}]
    assert searched_names(trials) == ["b"]


def test_a_trial_stands_where_we_say() -> None:
    assert standing({"paused": True, "state": "RUNNING"}) == "paused"
    assert standing({"paused": False, "state": "FAIL"}) == "failed"
    assert standing({"paused": False, "state": "COMPLETE"}) == "complete"


@pytest.mark.parametrize(("seconds", "words"), [(3.2, "3 s"), (119, "119 s"), (600, "10 min"), (9000, "2 h 30 min")])
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_events_become_lines() -> None:
    event = StudyEvent(
        id=1, kind="trial.reported", data={"trial_number": 2, "payload": {"loss": 1.5, "examples": 10, "seconds": 1}}
    )
    assert describe(event) == "trial 2 has loss 1.5 after 10 examples"
    assert describe(StudyEvent(id=2, kind="something.new", data={})) is None


def test_tables_do_not_read_markup() -> None:
    table = make_table(("a",), [("[red]x",)])
    assert list(table.columns[0].cells) == ["[red]x"]
