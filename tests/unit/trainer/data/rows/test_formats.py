"""Formats and kinds of files: what each row says, and what is wrong with it."""

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import run
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer.data.rows import (
    Part,
    Row,
    RowError,
    RowReader,
    count_rows,
    data_files,
    file_parts,
    lines_before,
    read_rows,
    scan_part,
)
from trainer.data.rows import counts as counting_module
from trainer.data.rows.counts import count_rows_quickly

CHAT = {
    "messages": [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "tool", "content": ""},
        {"role": "assistant", "content": "done"},
    ]
}
SHAREGPT = {"conversations": [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "hi"}]}
COMPLETION = {"prompt": "two and two", "completion": " is four"}
TEXT = {"text": "a whole document", "url": "x"}
ALPACA = {"instruction": "add", "input": "2 2", "output": "4", "text": "the same in one"}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def chat(*turns: str) -> dict[str, Any]:
    return {"messages": [{"role": turn.split()[0], "content": turn.partition(" ")[2]} for turn in turns]}


@pytest.mark.parametrize(
    ("value", "name", "prompt", "response"),
    [
        (CHAT, "chat", "be kind\nhello\n", "hi\ndone"),
        (SHAREGPT, "sharegpt", "hello", "hi"),
        (COMPLETION, "prompt_completion", "two and two", " is four"),
        (TEXT, "text", "", "a whole document"),
        (ALPACA, "alpaca", "### Instruction:\nadd\n\n### Input:\n2 2\n\n### Response:\n", "4"),
    ],
)
def test_a_format_is_detected_and_read(tmp_path: Path, value: Any, name: Any, prompt: str, response: str) -> None:
    path = write(tmp_path / "rows.jsonl", value, value)
    rows = list(read_rows(path))
    assert [(row.format, row.line_number, row.prompt(), row.response()) for row in rows] == [
        (name, 1, prompt, response),
        (name, 2, prompt, response),
    ]
    assert list(read_rows(path, name)) == rows


def test_sharegpt_is_a_chat_in_other_words(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", SHAREGPT)
    same = write(tmp_path / "b.jsonl", chat("user hello", "assistant hi"))
    assert next(read_rows(path)).messages == next(read_rows(same)).messages


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"a": 1, "b": 2}, "no known format: its keys are `a`, `b`"),
        ({}, "its keys are none"),
        ({"messages": "x"}, "`messages` must be a list, this is a str"),
        ({"messages": []}, "no turn of the assistant"),
        ({"messages": [3]}, "message 1 of `messages`: it must be an object"),
        ({"messages": [{"role": "user"}]}, "message 1 of `messages`: `content` is missing"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "`content` must be a string"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "`role` is 'robot'; it must be one of system, user"),
        ({"messages": [{"role": "assistant", "content": "x", "tool_calls": [1]}]}, "`tool_calls` (a call of a tool)"),
        (chat("user  ", "assistant x"), "message 1 of `messages`: `content` is empty"),
        (chat("user a", "assistant "), "message 2 of `messages`: `content` is empty"),
        (chat("user a"), "no turn of the assistant"),
        (chat("assistant a"), "message 1 is of assistant; at the start comes system or user"),
        (chat("user a", "user b", "assistant c"), "message 2 is of user; after user comes assistant"),
        (chat("user a", "assistant b", "assistant c"), "message 3 is of assistant; after assistant comes user or tool"),
        (chat("user a", "system b", "assistant c"), "message 2 is of system"),
        (chat("user a", "assistant b", "user c"), "the last message is of user; a chat ends with the assistant"),
        ({"conversations": [{"from": "bing", "value": "x"}]}, "`from` is 'bing'; it must be one of human, user, gpt"),
        ({"prompt": "a"}, "`completion` is missing"),
        ({"prompt": " ", "completion": "a"}, "`prompt` is empty"),
        ({"prompt": [{"role": "user"}], "completion": "a"}, "`prompt` must be a string, this is a list"),
        ({"text": "\n"}, "`text` is empty"),
        ({"text": 7}, "`text` must be a string"),
    ],
)
def test_what_is_wrong_with_a_row(tmp_path: Path, value: Any, problem: str) -> None:
    with pytest.raises(RowError, match="line 1") as caught:
        list(read_rows(write(tmp_path / "rows.jsonl", value)))
    assert problem in caught.value.problem


def test_all_rows_have_the_format_of_the_first_or_the_named_one(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ALPACA, TEXT)
    with pytest.raises(RowError, match="line 2: `instruction` is missing"):
        count_rows(path)
    assert [row.response() for row in read_rows(path, "text")] == ["the same in one", "a whole document"]


def parquet(path: Path, rows: list[Any], group_rows: int = 2) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=group_rows)
    return path


def gzipped(path: Path, rows: list[Any]) -> Path:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return path


ROWS = [{"instruction": f"say {number}", "input": None, "output": "ü" * number} for number in range(7)]


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: write(folder / "rows.json", *ROWS),
        lambda folder: gzipped(folder / "rows.jsonl.gz", ROWS),
        lambda folder: parquet(folder / "rows.parquet", ROWS),
    ],
)
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    rows = list(read_rows(make(tmp_path)))
    assert [(row.line_number, row.response()) for row in rows] == [(n + 1, "ü" * n) for n in range(7)]
    assert count_rows_quickly(make(tmp_path)) == 7


def test_chats_in_parquet(tmp_path: Path) -> None:
    path = parquet(tmp_path / "rows.parquet", [CHAT, chat("user a", "assistant b")])
    assert [len(row.messages) for row in read_rows(path)] == [5, 2]
    bad = parquet(tmp_path / "bad.parquet", [CHAT, CHAT, CHAT, chat("user a")])
    with pytest.raises(RowError, match="line 4: the chat has no turn"):
        count_rows(bad)


def test_a_folder_is_its_shards_by_name(tmp_path: Path) -> None:
    for name, start in (("b", 3), ("a", 0), ("c", 5)):
        write(tmp_path / f"{name}.jsonl", *ROWS[start : {"a": 3, "b": 5, "c": 7}[name]])
    for name in ("README.md", ".hidden.jsonl", "_SUCCESS"):
        (tmp_path / name).write_text("not rows")
    rows = list(read_rows(tmp_path))
    assert [row.response() for row in rows] == ["ü" * n for n in range(7)]
    assert [(Path(row.file).name, row.line_number) for row in rows[3:6]] == [
        ("b.jsonl", 1),
        ("b.jsonl", 2),
        ("c.jsonl", 1),
    ]
    write(tmp_path / "b.jsonl", ROWS[0], TEXT)
    with pytest.raises(RowError, match=r"b\.jsonl, line 2"):
        count_rows(tmp_path)


def test_folders_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RowError, match="holds no shards"):
        data_files(tmp_path)
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(RowError, match="the folder holds no rows"):
        count_rows(tmp_path)
    parquet(tmp_path / "b.parquet", ROWS)
    with pytest.raises(RowError, match=r"several kinds \(jsonl, parquet\)"):
        count_rows(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("rows.json.gz", b"", r"only \.jsonl\.gz"),
        ("rows.jsonl.gz", b"no gzip at all", "cannot be read"),
        ("rows.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 9000)[:-20], "cannot be read"),
        ("rows.parquet", b"PAR1 nothing", "cannot be read"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    (tmp_path / name).write_bytes(content)
    for count in (count_rows, count_rows_quickly):
        with pytest.raises(RowError, match=problem):
            count(tmp_path / name)


def test_parquet_of_other_columns(tmp_path: Path) -> None:
    with pytest.raises(RowError, match="no known format: its columns are `a`"):
        count_rows(parquet(tmp_path / "rows.parquet", [{"a": 1}]))


@pytest.mark.parametrize("part_bytes", [1, 17, 40, 100, 10_000])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_parts_give_every_row_once_in_order(tmp_path: Path, part_bytes: int, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text("\n\n" + "\n".join(json.dumps(row) for row in ROWS))
    else:
        parquet(path, ROWS)
    found, numbers = [], []
    for part in file_parts(path, part_bytes):
        before = lines_before(part) if kind == "jsonl" else 0
        for row in scan_part(part, RowReader()):
            assert isinstance(row, Row)
            found.append(row)
            numbers.append(before + row.line_number)
    assert [row.response() for row in found] == ["ü" * n for n in range(7)]
    assert numbers == [row.line_number for row in read_rows(path)]


def test_a_part_that_begins_within_a_line_begins_with_the_next(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", *ROWS)
    first = len(json.dumps(ROWS[0])) + 1
    for start, responses in ((first, ["ü", "ü" * 2]), (first + 1, ["ü" * 2])):
        stop = first + len(json.dumps(ROWS[1])) + 2
        rows = scan_part(Part(str(path), start, stop), RowReader())
        assert [row.response() for row in rows if isinstance(row, Row)] == responses


def test_large_files_are_counted_without_being_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting_module, "_COUNT_BYTES", 100)
    monkeypatch.setattr(counting_module, "_CHECKED_ROWS", 2)
    plain = tmp_path / "rows.jsonl"
    plain.write_text("\n" + json.dumps(ROWS[0]) + "\n \n" + json.dumps(ROWS[1]) + "\n{far down it is broken\n\t\n")
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    bad = parquet(tmp_path / "rows.parquet", [*ROWS, {"instruction": "", "output": ""}])
    assert [count_rows_quickly(path) for path in (plain, packed, bad)] == [3, 3, 8]
    plain.write_text("{at once broken\n" + "\n" * 100)
    with pytest.raises(RowError, match="line 1"):
        count_rows_quickly(plain)


def test_rows_need_no_machine_learning_library() -> None:
    code = (
        "import sys, trainer.data.rows; "
        "sys.exit(', '.join({'torch', 'transformers', 'datasets', 'pandas', 'pyarrow', 'numpy'} & set(sys.modules)))"
    )
    assert run([sys.executable, "-c", code], capture_output=True, text=True).stderr.strip() == ""
