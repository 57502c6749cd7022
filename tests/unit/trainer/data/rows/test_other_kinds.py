"""Rows and files of another kind are named as such, with what to do; what can be trained on is never refused."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer.data.rows import RowError, count_rows_quickly

PAIR = (
    "a preference pair (`chosen` and `rejected`), which DPO trains on; here a row has one answer: write `chosen` as "
    "`completion` beside the `prompt` and drop `rejected`"
)


def problem(path: Path) -> str:
    with pytest.raises(RowError) as caught:
        count_rows_quickly(path)
    return caught.value.problem


def lines(path: Path, *values: Any) -> Path:
    path.write_text("\n".join(map(json.dumps, values)) + "\n")
    return path


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"chosen": [{"role": "user", "content": "a"}], "rejected": []},
        {"conversations": [{"from": "human", "value": "a"}], "chosen": {}, "rejected": {}},
    ],
)
def test_preference_pairs(tmp_path: Path, row: dict[str, Any]) -> None:
    said = f"a row is a JSON object with one answer, this is {PAIR}"
    assert problem(lines(tmp_path / "rows.jsonl", row)) == said


def test_preference_pairs_in_a_table(tmp_path: Path) -> None:
    pq.write_table(
        pa.Table.from_pylist([{"prompt": "a", "chosen": "b", "rejected": "c"}]), path := tmp_path / "r.parquet"
    )
    assert problem(path) == f"each of its rows is {PAIR}"


def test_a_row_with_an_answer_of_its_own_is_trained_on_whatever_is_beside_it(tmp_path: Path) -> None:
    row = {"prompt": "a", "completion": "b", "chosen": "b", "rejected": "c"}
    assert count_rows_quickly(lines(tmp_path / "rows.jsonl", row)) == 1
    pq.write_table(pa.Table.from_pylist([row]), path := tmp_path / "r.parquet")
    assert count_rows_quickly(path) == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rows.csv", 'it is a CSV file; rows are JSON lines or Parquet. Convert it: python -c "import pandas; '),
        ("rows.tsv", "it is a TSV file; "),
        ("rows.xlsx", "it is an Excel file; "),
        ("data-00000-of-00001.arrow", "it is an Arrow file, as `save_to_disk` of Hugging Face's datasets writes it; "),
        ("rows.zip", "it is an archive; unpack it"),
        ("rows.pkl", "it is in a format that can run code when it is read; "),
    ],
)
def test_files(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / name).write_text("prompt,completion\na,b\n")
    assert problem(tmp_path / name).startswith(words)
    assert f"no .jsonl, .jsonl.gz or .parquet file. It holds {name}: {words}" in problem(tmp_path)


def test_the_conversion_of_a_table_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    (tmp_path / "my rows.csv").write_text('prompt,completion\n"a, b",c\nd,e\n')
    command = problem(tmp_path / "my rows.csv").partition('python -c "')[2].partition('"')[0]
    monkeypatch.chdir(tmp_path)
    exec(command)
    assert count_rows_quickly(tmp_path / "my rows.jsonl") == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("prompt,completion\na,b\n", ". It looks like CSV; rows are JSON lines (one JSON object a line) or Parquet"),
        ('[\n{"prompt": "a"}\n]', ". The file is one JSON array; rows are one JSON object a line: jq -c '.[]' FILE"),
        ('[{"prompt": "a", "completion": "b"}]', "this is a list; if the file is one JSON array, write one object a"),
        ('{\n"prompt": "a"}', ". Rows are JSON lines, one JSON object a line"),
    ],
)
def test_what_is_no_json_lines(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "rows.jsonl").write_text(content)
    assert words in problem(tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}]},
            "message 1 of `messages`: `tool_calls` (a call of a tool) cannot be learned; write the call into the "
            "content, as it is to be said",
        ),
        (
            {"messages": [{"role": "assistant", "content": "x", "function_call": {"name": "f"}}]},
            "message 1 of `messages`: `function_call` (a call of a tool) cannot be learned; write the call into the "
            "content, as it is to be said",
        ),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "{}"}]},
            "message 2 of `conversations`: `from` 'function_call' is of a call of a tool; write calls into what the "
            "assistant says, and answers of tools as role 'tool'",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
            "message 1 of `messages`: `content` must be a string, this is a list of parts; join their texts into one, "
            "images and sounds are not trained on",
        ),
    ],
)
def test_messages_that_cannot_be_learned(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    assert problem(lines(tmp_path / "rows.jsonl", row)) == said
