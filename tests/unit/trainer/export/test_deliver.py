"""Merge and quantization as jobs: what they are judged on, and how they are refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.common.errors import DataError
from trainer.data.rows import read_rows
from trainer.data.split import split_rows
from trainer.export.judged_rows import write_judged_rows
from trainer.spec import DataSpec, FileDigest, digest_of
from trainer.worker.jobs import REFUSED_TASK


def rows(path: Path) -> list[object]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, count: int) -> list[dict[str, str]]:
    content = [{"prompt": f"say {number}", "completion": f"<{number}>"} for number in range(count)]
    path.write_text("".join(f"{json.dumps(row)}\n\n" for row in content))
    return content


def test_rows_that_are_held_out_are_judged_and_never_calibrated_with(tmp_path: Path) -> None:
    content = write(tmp_path / "train.jsonl", 50)
    data = DataSpec(train=str(tmp_path / "train.jsonl"), eval_fraction=0.2, max_eval_examples=6)
    written = write_judged_rows(data, tmp_path)
    train, held_out = split_rows(data, 50, None)
    assert rows(written.evaluation) == [content[row] for row in held_out]
    assert rows(written.calibration) == [content[row] for row in train]
    assert (len(held_out), len(train), written.format) == (6, 40, "prompt_completion")
    assert len(list(read_rows(written.evaluation, written.format))) == 6


def test_rows_of_an_evaluation_file_are_judged_in_the_order_of_the_trial(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", 9)
    content = write(tmp_path / "eval.jsonl", 300)
    data = DataSpec(train=str(tmp_path / "train.jsonl"), eval=str(tmp_path / "eval.jsonl"))
    judged = rows(write_judged_rows(data, tmp_path).evaluation)
    assert judged == [content[row] for row in split_rows(data, 9, 300)[1][:256]]


def test_a_row_that_cannot_be_read_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(DataError, match=r"train.jsonl, line 2"):
        write_judged_rows(DataSpec(train=str(tmp_path / "train.jsonl")), tmp_path)


def test_the_digest_of_files_is_that_of_sha256sum(tmp_path: Path) -> None:
    files = {"b": FileDigest(sha256="2" * 64, size_bytes=1), "a": FileDigest(sha256="1" * 64, size_bytes=1)}
    sums = f"{'1' * 64}  a\n{'2' * 64}  b\n"
    ran = subprocess.run(["sha256sum"], input=sums, capture_output=True, text=True, check=True)
    assert digest_of(files) == ran.stdout.split()[0]


@pytest.mark.parametrize("task", ["", "{}", '{"kind": "merge", "model": "m", "folder": "../out"}'])
def test_a_task_that_is_none_is_refused(task: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainer", "deliver", "--task", "-", "--threads", "1"]
    where = ["--snapshots", str(tmp_path / "store"), "--scratch", str(tmp_path / "scratch")]
    ran = subprocess.run([*command, *where], input=f"{task}\n", capture_output=True, text=True, check=False)
    assert ran.returncode == REFUSED_TASK
    assert ran.stderr.splitlines()[-1].startswith("error: the task is no step of a delivery: ")
    assert not (tmp_path / "store").exists()
