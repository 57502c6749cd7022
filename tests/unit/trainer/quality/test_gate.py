"""The report as a whole: verdicts, what it never says, that it is the same whoever computes it, and how it reads."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.quality_data import PRIVATE, TOKENS, Row, clean_rows, finding, report_on, write_rows
from trainer.common.errors import UserError
from trainer.data.rows import RowError
from trainer.data.split import split_rows
from trainer.quality import table
from trainer.quality.render import markdown, terminal
from trainer.spec import DataSpec, QualityReport, QualityThresholds
from trainer.spec.quality import CHECKS


def _with_defects(path: Path) -> str:
    rows = clean_rows(100)
    rows[10] = rows[3]
    rows[20]["output"] = ""
    return write_rows(path, rows)


def test_thresholds_change_the_verdict(tmp_path: Path) -> None:
    train = _with_defects(tmp_path / "a.jsonl")
    held_out = write_rows(tmp_path / "b.jsonl", clean_rows(60, seed=1))

    def verdict(**thresholds: object) -> str:
        return report_on(train, held_out, thresholds=QualityThresholds.model_validate(thresholds)).verdict

    assert verdict() == "warn"
    assert verdict(empty_responses="off") == "pass"
    assert verdict(empty_responses="fail") == "fail"
    assert verdict(empty_responses={"warn": 0.1}, exact_duplicates={"warn": 0.001}) == "warn"
    assert verdict(empty_responses={"warn": 0.1}, exact_duplicates={"warn": 0.02}) == "pass"


def test_what_is_switched_off_is_not_run(tmp_path: Path) -> None:
    off = QualityThresholds.model_validate(dict.fromkeys(CHECKS, "off"))
    report = report_on(_with_defects(tmp_path / "a.jsonl"), thresholds=off)
    assert {found.verdict for found in report.findings} == {"not_run"}
    assert report.verdict == "pass"


def test_every_check_reports_once_and_in_order(tmp_path: Path, base_folder: Path) -> None:
    train = _with_defects(tmp_path / "a.jsonl")
    for model in (None, base_folder):
        report = report_on(train, model=model)
        assert tuple(found.check for found in report.findings) == CHECKS
        truncation = {finding(report, check).verdict for check in ("truncated_rows", "truncated_responses")}
        assert ("not_run" in truncation) is (model is None)


def test_no_secret_appears_in_any_report(tmp_path: Path) -> None:
    hidden = [*TOKENS.values(), *PRIVATE.values()]
    rows: list[Row | str] = [*clean_rows(60)]
    for number, text in enumerate(hidden):
        rows[number] = {"instruction": text, "input": f"use {text}", "output": f"{text} is what you want"}
    rows[40] = {"messages": [{"role": TOKENS["GitHub token"], "content": "hi"}], "instruction": "ask", "output": 5}
    rows[41] = json.dumps({TOKENS["AWS access key"]: 1})
    rows[42] = '{"instruction": "' + PRIVATE["e-mail address"] + '", '
    rows[43] = {"messages": [{"role": "github_pat_" + "aB3" * 24, "content": "hi"}]}
    for name, lines in (("a.jsonl", rows), ("b.jsonl", [*rows[40:41], {"messages": [{"role": hidden[0]}]}])):
        report = report_on(write_rows(tmp_path / name, lines))
        for text in (report.model_dump_json(), markdown(report), terminal(report)):
            shown = text.replace("\\", "")
            assert [secret for secret in hidden if secret.splitlines()[-1] in shown] == []
    report = report_on(str(tmp_path / "a.jsonl"))
    assert finding(report, "secrets").rows == len(TOKENS)
    assert "GitHub token: 1" in finding(report, "secrets").message
    assert finding(report, "personal_data").rows >= len(PRIVATE)


def test_a_file_of_bad_rows_is_a_report_not_an_error(tmp_path: Path) -> None:
    report = report_on(write_rows(tmp_path / "a.jsonl", ["nothing", "of this", "is JSON"]))
    assert report.verdict == "fail"
    assert (report.train_rows, report.eval_rows) == (0, 0)
    assert finding(report, "unreadable_rows").measure == 1.0
    assert finding(report, "near_duplicates").verdict == "not_run"


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_few_rows_are_enough_to_run(rows: int, tmp_path: Path, base_folder: Path) -> None:
    report = report_on(write_rows(tmp_path / "a.jsonl", clean_rows(rows)), model=base_folder)
    assert report.train_rows + report.eval_rows == rows
    assert not [found for found in report.findings if found.verdict == "fail"]


def test_a_report_is_bounded_whatever_the_data_hold(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    name = "n" * 200 + ".jsonl"
    bad = json.dumps({"k" * 3000: 1, "instruction": {"x": "y" * 5000}})
    defects: list[Row | str] = [{**row, "output": ""} for row in clean_rows(3000)]
    write_rows(folder / name, [*defects, *defects[:500], *[bad] * 300])
    report = report_on(str(folder))
    assert finding(report, "empty_responses").rows == 3500
    assert max(len(found.lines) for found in report.findings) == 10
    assert len(report.model_dump_json()) < 30_000


def test_what_cannot_be_checked_is_an_error(tmp_path: Path, base_folder: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", clean_rows(10))
    with pytest.raises(RowError, match="cannot be read"):
        report_on(str(tmp_path / "none.jsonl"))
    with pytest.raises(RowError, match="no rows"):
        report_on(write_rows(tmp_path / "b.jsonl", []))
    with pytest.raises(UserError, match="not a folder"):
        report_on(path, model=tmp_path / "no-model")
    chats = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    with pytest.raises(UserError, match="no chat template"):
        report_on(write_rows(tmp_path / "c.jsonl", chats), model=base_folder)


def test_a_model_without_a_fast_tokenizer_leaves_truncation_out(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", clean_rows(10))
    report = report_on(path, model=tmp_path)
    assert finding(report, "truncated_rows").verdict == "not_run"
    assert "no tokenizer.json" in finding(report, "truncated_rows").message


def test_the_split_is_that_of_training(row_files: tuple[Path, Path], make_data) -> None:  # type: ignore[no-untyped-def]
    for held_out in (None, str(row_files[1])):
        spec = DataSpec(train=str(row_files[0]), eval=held_out, eval_fraction=0.2, split_seed=5, max_eval_examples=6)
        data = make_data(spec)
        train, evaluation = split_rows(spec, 37, None if held_out is None else 11)
        assert train.tolist() == data.train.rows.tolist()
        assert evaluation.tolist() == data.evaluation.rows.tolist()


@pytest.fixture
def make_data(base_folder: Path, tmp_path: Path):  # type: ignore[no-untyped-def]
    from trainer.data.dataset import DataCache
    from trainer.data.token_cache import TokenCache
    from trainer.data.tokenizer import load_tokenizer

    cache = DataCache(load_tokenizer(str(base_folder)), TokenCache(tmp_path / "tokens", 1))
    return lambda spec: cache.load(spec, 512)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000), chunk=st.integers(1, 40))
def test_a_report_depends_on_the_data_alone(
    seed: int, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(seed)
    rows = clean_rows(90, seed)
    for _ in range(10):
        rows[draw.randrange(90)] = {**draw.choice(rows), "output": draw.choice(["", "k", draw.choice(rows)["output"]])}
    path = write_rows(tmp_path / "a.jsonl", rows)
    expected = _without_seconds(report_on(path))
    with monkeypatch.context() as patch:
        patch.setattr(table, "_ROWS_AT_ONCE", chunk)
        assert _without_seconds(report_on(path)) == expected


def test_a_report_does_not_depend_on_the_number_of_processes(
    tmp_path: Path, base_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = clean_rows(90)
    rows[50] = {**rows[8], "output": rows[8]["output"] + " more"}
    path = write_rows(tmp_path / "a.jsonl", rows)
    expected = _without_seconds(report_on(path, model=base_folder))
    monkeypatch.setattr(table, "_ROWS_AT_ONCE", 20)
    assert _without_seconds(report_on(path, model=base_folder, processes=2)) == expected


def _without_seconds(report: QualityReport) -> QualityReport:
    return report.model_copy(update={"seconds": 0.0})


def test_markdown_is_not_broken_by_names(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    rows = clean_rows(30)
    rows[4]["output"] = ""
    write_rows(folder / "a|b `c` <d>.jsonl", rows)
    text = markdown(report_on(str(folder)))
    assert "- a\\|b \\`c\\` \\<d\\>.jsonl:5" in text
    table_rows = [line for line in text.splitlines() if line.startswith("| ") and "`" in line]
    assert len(table_rows) == len(CHECKS)
    assert {line.replace("\\|", "").count("|") for line in table_rows} == {7}


def test_the_worst_comes_first(tmp_path: Path) -> None:
    report = report_on(write_rows(tmp_path / "a.jsonl", [*clean_rows(30), "broken"]))
    lines = terminal(report).splitlines()
    assert lines[0].startswith("FAIL: ")
    assert lines[2].startswith("FAIL  unreadable_rows")
    assert "a.jsonl:31" in lines[3] + lines[4]


def test_torch_is_never_imported(tmp_path: Path, base_folder: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", clean_rows(10))
    code = (
        "import sys; from trainer.__main__ import main; "
        f"code = main(['check-data', {path!r}, '--model', {str(base_folder)!r}]); "
        "print(sorted({'torch', 'transformers'} & set(sys.modules)), code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] 0"
