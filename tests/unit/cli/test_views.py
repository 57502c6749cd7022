"""What humans read of the service's answers."""

from typing import Any

import pytest

from hpo_service.cli.figures import check_sentence, efficiency, ran_as
from hpo_service.cli.output import make_table, text
from hpo_service.cli.views import (
    _gain,
    best_sentence,
    dtype_sentence,
    duration,
    gain_sentence,
    searched_names,
    standing,
)
from hpo_service.cli.watch import describe
from hpo_service.client.http import StudyEvent


def improvement(**changes: Any) -> dict[str, Any]:
    facts = {"baseline_trial": 0, "examples": 500, "baseline_examples": 500, "baseline_loss": 4.0, "loss": 3.0}
    return facts | {"difference": -1.0, "relative": 0.25, "seeds": 0} | changes


def best(**changes: Any) -> dict[str, Any]:
    facts = {"trial_number": 3, "loss": 3.0, "examples": 500, "provisional": False, "improvement": improvement()}
    return facts | changes


def test_numbers_are_short_and_nothing_is_a_dash() -> None:
    assert [text(value) for value in (None, 0.000123456, 12.0, 3, "x", {"a": 1.0})] == [
        "-", "0.00012346", "12", "3", "x", "a=1",
    ]  # fmt: skip


def test_what_users_write_cannot_steer_a_terminal() -> None:
    """The audit log shows what was asked for, refused requests too."""
    assert text({"na\x1bme": {"label": "a\x1b[2J\x9b\r"}, "list": ["\x1b"]}) == (
        "na\\x1bme=label=a\\x1b[2J\\x9b\\x0d list=['\\x1b']"
    )
    assert text("two\nlines") == "two\nlines"


def test_the_gain_is_said_in_words() -> None:
    assert gain_sentence(best()).startswith("25.0% better than the baseline (3.0000 against 4.0000 after 500")
    assert "5.0% worse" in gain_sentence(best(improvement=improvement(relative=-0.05)))
    assert gain_sentence(best(improvement=None)) == "no baseline to compare with"
    assert "baseline itself" in gain_sentence(best(trial_number=0))


def test_the_baseline_has_no_gain_over_itself() -> None:
    """The list said -0.0%."""
    itself = best(trial_number=0, improvement=improvement(relative=0.0))
    assert [_gain(one) for one in (None, best(improvement=None), itself, best())] == ["-", "-", "-", "-25.0%"]


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


def test_notices_and_data_checks_become_lines() -> None:
    notice = {"kind": "oom_halved", "step": 3, "values": {}, "message": "the micro-batch is 4 now"}
    event = StudyEvent(id=1, kind="trial.notice", data={"trial_number": 2, "payload": notice})
    assert describe(event) == "trial 2: the micro-batch is 4 now"
    found = [{"check": "secrets", "verdict": "warn", "message": "1 row"}]
    checked = StudyEvent(id=2, kind="data.checked", data={"payload": {"verdict": "warn", "findings": found}})
    assert describe(checked) == "data check: warn (secrets: 1 row)"


def test_a_data_check_is_one_line() -> None:
    findings = [
        {"check": "secrets", "verdict": "pass", "message": "0 rows"},
        {"check": "leakage_exact", "verdict": "fail", "message": "9 rows"},
    ]
    check: dict[str, Any] = {"state": "failed", "job": 7, "message": "", "report": {"findings": findings}}
    assert check_sentence(check) == "failed: fail leakage_exact: 9 rows"
    assert check_sentence({**check, "state": "pending", "report": None}).startswith("pending (job 7)")
    assert check_sentence({**check, "report": None, "message": "no such file"}) == "failed (no such file)"


def test_what_is_not_known_of_the_speed_is_left_out() -> None:
    usage: dict[str, Any] = {
        f"{phase}_seconds": 0.0 for phase in ("load", "data", "train", "evaluate", "snapshot", "lost")
    }
    usage |= {"tokens": 0, "tokens_per_second": None, "mfu": None, "hfu": None, "busy": None, "energy_joules": None}
    usage |= {"peak_memory_bytes": 0}
    assert efficiency(usage) == {}
    usage |= {"train_seconds": 9.0, "data_seconds": 1.0, "tokens": 100, "tokens_per_second": 10.0}
    usage |= {"mfu": 0.25, "hfu": 0.3, "busy": 0.9, "energy_joules": 3.6e6, "peak_memory_bytes": 3 << 29}
    assert efficiency(usage) == {
        "tokens": "100 (10 a second)",
        "MFU, HFU": "25.0%, 30.0%",
        "busy": "90.0%",
        "energy": "1 kWh",
        "time went to": "0% load, 10% data, 90% train, 0% evaluate, 0% snapshot",
        "peak memory": "1.50 GiB",
    }
    assert efficiency(usage | {"lost_seconds": 10.0})["time went to"].endswith("0% snapshot, 50% lost")
    attempt = {"devices": 2, "device": "H100", "dtype": "bfloat16", "attention": "sdpa", "micro_batch": 4}
    assert ran_as(attempt) == "2 x H100, bfloat16, sdpa, micro-batch 4"
    assert ran_as({"devices": 1, "device": "cpu", "dtype": "", "attention": "", "micro_batch": None}) == "cpu"


def test_tables_do_not_read_markup() -> None:
    table = make_table(("a",), [("[red]x",)])
    assert list(table.columns[0].cells) == ["[red]x"]


def test_what_trials_are_computed_in_is_said_once_it_is_known() -> None:
    assert dtype_sentence({"model": {"dtype": "auto"}}) is None
    assert dtype_sentence({"model": {"dtype": "float32"}}) == "float32"
    pinned = {"model": {"dtype": "bfloat16"}, "dtype_device": "NVIDIA H100"}
    assert dtype_sentence(pinned) == "bfloat16, which auto is on NVIDIA H100"
