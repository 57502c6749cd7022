"""Rows: what is accepted, what is refused and where."""

import errno
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainer.data.rows import (
    MAX_LINE_BYTES,
    Row,
    RowError,
    blocks,
    count_rows,
    example_counts,
    read_rows,
    scan_rows,
    split_sizes,
    total_examples,
    unreadable,
)
from trainer.spec import DataSpec, Outcome

GOOD = b'{"instruction": "say", "input": "x", "output": "y"}\n'


def test_rows_are_streamed_with_their_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD + b"\n" + b'{"instruction": "go", "input": null, "output": "", "id": 4}')
    assert [(row.line_number, *(message.content for message in row.messages)) for row in read_rows(path)] == [
        (1, "say", "x", "y"),
        (3, "go", ""),
    ]
    assert count_rows(path) == 2


def test_the_prompt_leaves_an_empty_input_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD + b'{"instruction": "go", "output": "z"}\n')
    prompts = [row.prompt() for row in read_rows(path)]
    assert prompts[0] == "### Instruction:\nsay\n\n### Input:\nx\n\n### Response:\n"
    assert prompts[1] == "### Instruction:\ngo\n\n### Response:\n"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{nope\n", "not JSON"),
        (b"[1, 2]\n", "a row is a JSON object with one answer, this is a list"),
        (b'{"instruction": "a"}\n', "`output` is missing"),
        (b'{"output": "a"}\n', "`instruction` is missing"),
        (b'{"instruction": " ", "output": "a"}\n', "`instruction` is empty"),
        (b'{"instruction": "a", "output": 3}\n', "`output` must be a string, this is a int"),
        (b'{"instruction": "a", "input": [], "output": "b"}\n', "`input` must be a string"),
        (b'{"instruction": "\xff", "output": "b"}\n', "not UTF-8 at byte 17"),
        (b'{"instruction": "\\ud800", "output": "b"}\n', "half a surrogate pair"),
        (b"[" * 100_000 + b"\n", "not JSON"),
        (b"x" * (MAX_LINE_BYTES + 1), "longer than"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, problem: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD + line)
    with pytest.raises(RowError, match="line 2") as caught:
        count_rows(path)
    assert caught.value.line_number == 2
    assert problem in caught.value.problem


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_a_blank_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(RowError, match="holds no rows"):
        count_rows(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RowError, match="cannot be read"):
        count_rows(tmp_path / "nowhere.jsonl")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), Outcome.DATA_ERROR),
        (PermissionError(errno.EACCES, "Permission denied"), Outcome.DATA_ERROR),
        (gzip.BadGzipFile("Not a gzipped file"), Outcome.DATA_ERROR),
        (EOFError("Compressed file ended"), Outcome.DATA_ERROR),
        (OSError(errno.EIO, "Input/output error"), Outcome.INFRA_ERROR),
        (OSError(errno.ESTALE, "Stale file handle"), Outcome.INFRA_ERROR),
        (OSError(errno.EMFILE, "Too many open files"), Outcome.INFRA_ERROR),
    ],
)
def test_a_machine_that_fails_is_not_the_datas_fault(error: Exception, outcome: Outcome) -> None:
    problem = unreadable("rows.jsonl", error)
    assert problem.outcome is outcome
    assert str(problem) == f"rows.jsonl: cannot be read: {getattr(error, 'strerror', None) or error}"


def test_a_scan_goes_on_after_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"{nope\n" + GOOD + b"x" * (MAX_LINE_BYTES + 5) + b"\n" + GOOD + b'{"instruction": "a"}\n')
    found = [(type(row), row.line_number) for row in scan_rows(path)]
    assert found == [(RowError, 1), (Row, 2), (RowError, 3), (Row, 4), (RowError, 5)]


@pytest.mark.parametrize(("rows", "sizes"), [(1, (1, 0)), (2, (1, 1)), (10, (9, 1)), (1000, (950, 50))])
def test_split_sizes(rows: int, sizes: tuple[int, int]) -> None:
    assert split_sizes(rows, 0.05) == sizes


def test_limits_apply_after_the_split() -> None:
    data = DataSpec(train="t", max_train_examples=20, max_eval_examples=3)
    assert example_counts(data, 1000) == (20, 3)
    assert example_counts(data, 10, 2) == (10, 2)


def test_total_examples_rounds_and_is_never_zero() -> None:
    assert [total_examples(37, epochs) for epochs in (0.001, 0.5, 1, 2.5)] == [1, 18, 37, 92]


def test_json_of_python_is_not_accepted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"instruction": "a", "output": float("nan")}))
    with pytest.raises(RowError, match="must be a string"):
        count_rows(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.lists(st.sampled_from([b"\n", b" ", b"\r", b"a"]), max_size=20).map(b"".join))
def test_lines_are_counted_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    expected = sum(bool(line.strip()) for line in content.split(b"\n"))
    for block_bytes in (1, 2, 3, 100):
        monkeypatch.setattr(blocks, "_BLOCK_BYTES", block_bytes)
        assert blocks.count_lines(path) == expected


def test_much_is_known_before_it_is_read(tmp_path: Path) -> None:
    plain, packed = tmp_path / "rows.jsonl", tmp_path / "more.jsonl.gz"
    plain.write_bytes(GOOD * 3)
    packed.write_bytes(gzip.compress(GOOD * 3))
    for paths, times in (([plain], 3), ([packed], 3), ([plain, packed], 6)):
        assert not blocks.exceed(paths, most_bytes=times * len(GOOD), most_lines=times)
        assert blocks.exceed(paths, most_bytes=times * len(GOOD) - 1, most_lines=times)
        assert blocks.exceed(paths, most_bytes=times * len(GOOD), most_lines=times - 1)
