"""`python -m trainer check-data`: what it takes, writes and exits with."""

import errno
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest

from tests.quality_data import clean_rows, write_rows
from trainer.__main__ import main
from trainer.data.rows import files as rows_of_files
from trainer.spec import CheckData, DataSpec, QualityReport, QualityThresholds


@pytest.fixture
def clean(tmp_path: Path) -> str:
    return write_rows(tmp_path / "clean.jsonl", clean_rows(400))


@pytest.fixture
def bad(tmp_path: Path) -> str:
    return write_rows(tmp_path / "bad.jsonl", [*clean_rows(40), "broken"])


def run(*arguments: str) -> int:
    return main(["check-data", "--processes", "1", *arguments])


def test_exit_statuses(clean: str, bad: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    warned = write_rows(tmp_path / "warned.jsonl", [*clean_rows(400), {"instruction": "say nothing", "output": ""}])
    assert run(clean) == 0
    assert run(warned) == 0
    assert capsys.readouterr().out.count("WARN") > 0
    assert run(bad) == 3
    assert run(str(tmp_path / "none.jsonl")) == 4
    assert run(clean, "--model", str(tmp_path / "none")) == 4
    assert run(clean, "--markdown", str(tmp_path / "none" / "report.md")) == 1
    assert run() == 2
    assert run(clean, "--spec", clean) == 2
    assert run(clean, "--max-length", "1") == 2
    errors = capsys.readouterr().err.splitlines()
    assert all(line.startswith("error: ") for line in errors)
    assert len(errors) == 6
    with pytest.raises(SystemExit) as stopped:
        run(clean, "--processes", "0")
    assert stopped.value.code == 2


def test_a_fault_of_the_machine_says_nothing_about_the_data(
    clean: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 1, so that the service tries the check again instead of failing the study."""
    (tmp_path / "file").touch()
    assert run(clean, "--scratch", str(tmp_path / "file")) == 1

    def broken_disk(*_: object) -> NoReturn:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(rows_of_files, "_scan_lines", broken_disk)
    assert run(clean) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {clean}: cannot be read: Input/output error"


def test_large_temporary_files_lie_where_one_says(clean: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    temporary = tempfile.TemporaryFile

    def noted(*arguments: Any, **options: Any) -> Any:
        seen.append(options.get("dir"))
        return temporary(*arguments, **options)

    monkeypatch.setattr(tempfile, "TemporaryFile", noted)
    assert run(clean, "--scratch", str(tmp_path / "new" / "scratch")) == 0
    assert seen == [tmp_path / "new" / "scratch"] * 2


def test_reports_go_where_they_are_wanted(bad: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = tmp_path / "report.json", tmp_path / "report.md"
    assert run(bad, "--json", str(paths[0]), "--markdown", str(paths[1])) == 3
    assert capsys.readouterr().out.startswith("FAIL: ")
    report = QualityReport.model_validate_json(paths[0].read_text())
    assert report.verdict == "fail"
    assert paths[1].read_text().startswith("# Data quality: FAIL\n")
    assert run(bad, "--json", "-") == 3
    printed = QualityReport.model_validate_json(capsys.readouterr().out)
    assert printed.findings == report.findings


def test_options_reach_the_check(
    clean: str, tmp_path: Path, base_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out = write_rows(tmp_path / "held-out.jsonl", clean_rows(30, seed=1))
    options = [
        "--eval",
        held_out,
        "--model",
        str(base_folder),
        "--format",
        "alpaca",
        "--max-length",
        "64",
        "--json",
        "-",
    ]
    run(clean, *options)
    report = QualityReport.model_validate_json(capsys.readouterr().out)
    assert (report.train_rows, report.eval_rows) == (400, 30)
    cut = next(found for found in report.findings if found.check == "truncated_rows")
    assert cut.measure > 0.9
    run(clean, "--eval-fraction", "0.25", "--json", "-")
    assert QualityReport.model_validate_json(capsys.readouterr().out).eval_rows == 100
    assert run(clean, "--format", "chat") == 3


def test_thresholds_come_from_a_file(bad: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    thresholds = tmp_path / "thresholds.yaml"
    thresholds.write_text("unreadable_rows: {warn: 0, fail: 0.5}\neval_size: off\n")
    assert run(bad, "--thresholds", str(thresholds)) == 0
    thresholds.write_text("unreadable: off\n")
    assert run(bad, "--thresholds", str(thresholds)) == 4
    assert "unreadable" in capsys.readouterr().err
    thresholds.write_text("[")
    assert run(bad, "--thresholds", str(thresholds)) == 4


def test_a_study_says_what_to_check(clean: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = tmp_path / "study.yaml"
    study.write_text("kind: Study\nmodel: {path: .}\ndata: {train: clean.jsonl, eval_fraction: 0.25, other: 1}\n")
    assert run("--spec", str(study), "--json", "-") == 0
    assert QualityReport.model_validate_json(capsys.readouterr().out).eval_rows == 100


def test_a_studys_own_thresholds_count(bad: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = tmp_path / "study.yaml"
    data = "data: {train: bad.jsonl, test: test.jsonl}\n"
    write_rows(tmp_path / "test.jsonl", clean_rows(9, seed=4))
    study.write_text(f"{data}data_checks: {{unreadable_rows: warn, eval_size: off}}\n")
    assert run("--spec", str(study), "--json", "-") == 0
    assert QualityReport.model_validate_json(capsys.readouterr().out).test_rows == 9
    thresholds = tmp_path / "thresholds.yaml"
    thresholds.write_text("unreadable_rows: fail\n")
    assert run("--spec", str(study), "--thresholds", str(thresholds)) == 3
    study.write_text(f"{data}data_checks: {{unreadable: off}}\n")
    assert run("--spec", str(study)) == 4
    assert f"error: {study}: unreadable: " in capsys.readouterr().err


def task(train: str, **values: object) -> bytes:
    thresholds = QualityThresholds.model_validate(values)
    return (
        CheckData(model=str(Path(train).parent), data=DataSpec(train=train), thresholds=thresholds)
        .model_dump_json()
        .encode()
    )


def start() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "trainer", "check-data", "--task", "-", "--processes", "2"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_task_is_answered_with_one_line(bad: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    child = start()
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(task(bad, unreadable_rows="warn") + b"\n")
    child.stdin.flush()
    lines = child.stdout.read().splitlines()
    assert child.wait(30) == 0
    child.communicate()
    assert len(lines) == 1
    assert json.loads(lines[0])["verdict"] == "warn"
    file = tmp_path / "task.json"
    file.write_bytes(task(bad))
    assert run("--task", str(file)) == 3
    assert json.loads(capsys.readouterr().out)["verdict"] == "fail"
    file.write_bytes(b'{"kind": "merge"}')
    assert run("--task", str(file)) == 2


def test_a_task_dies_with_who_asked_for_it(tmp_path: Path) -> None:
    rows = clean_rows(4000)
    path = write_rows(tmp_path / "large.jsonl", (row for _ in range(25) for row in rows))
    child = start()
    assert child.stdin is not None
    child.stdin.write(task(path) + b"\n")
    child.stdin.flush()
    deadline = time.monotonic() + 60
    family: list[psutil.Process] = []
    while len(family) < 2 and time.monotonic() < deadline:
        family = psutil.Process(child.pid).children(recursive=True)
        time.sleep(0.05)
    assert len(family) >= 2
    child.stdin.close()
    assert child.wait(20) == 1
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []
    child.stdout and child.stdout.close()
    child.stderr and child.stderr.close()
