"""Instruction rows on disk: reading, counting, splitting and the prompt template. No torch here."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from trainer.errors import DataError
from trainer.spec import DataSpec

MAX_LINE_BYTES = 4 * 1024 * 1024
TEMPLATE = "alpaca-1"
_BOM = b"\xef\xbb\xbf"


class RowError(DataError):
    """A file of rows is unusable; `line_number` starts at 1 and is 0 if the file as a whole is meant."""

    def __init__(self, path: str | Path, line_number: int, problem: str) -> None:
        self.path = str(path)
        self.line_number = line_number
        self.problem = problem
        where = f"{self.path}, line {line_number}" if line_number else self.path
        super().__init__(f"{where}: {problem}")


class Row(NamedTuple):
    """One instruction example; `input` may be empty."""

    line_number: int
    instruction: str
    input: str
    output: str

    def prompt(self) -> str:
        """The text before the response, in the alpaca template; without an input the section is left out."""
        middle = f"### Input:\n{self.input}\n\n" if self.input else ""
        return f"### Instruction:\n{self.instruction}\n\n{middle}### Response:\n"


def read_rows(path: str | Path) -> Iterator[Row]:
    """Stream the rows of a JSONL file in constant memory; blank lines are skipped.

    Raises:
        RowError: the file cannot be opened, a line is no valid row, or there is no row at all.
    """
    empty = True
    try:
        with Path(path).open("rb") as file:
            for line_number, raw in _lines(file, path):
                if raw.strip():
                    empty = False
                    yield _parse(raw, path, line_number)
    except OSError as error:
        raise RowError(path, 0, f"cannot be read: {error.strerror or error}") from error
    if empty:
        raise RowError(path, 0, "the file holds no rows")


def count_rows(path: str | Path) -> int:
    """Number of rows, each of them checked. Raises RowError as `read_rows` does."""
    return sum(1 for _ in read_rows(path))


def split_sizes(rows: int, eval_fraction: float) -> tuple[int, int]:
    """Rows for (training, evaluation); both are at least 1 if there are two rows or more."""
    evaluation = min(max(1, round(rows * eval_fraction)), max(0, rows - 1))
    return rows - evaluation, evaluation


def example_counts(data: DataSpec, train_file_rows: int, eval_file_rows: int | None = None) -> tuple[int, int]:
    """Examples a trial sees as (training per epoch, evaluation) after split and limits.

    `eval_file_rows` is the number of rows of `data.eval`, None where the training file is split.
    """
    if eval_file_rows is None:
        train, evaluation = split_sizes(train_file_rows, data.eval_fraction)
    else:
        train, evaluation = train_file_rows, eval_file_rows
    return min(train, data.max_train_examples or train), min(evaluation, data.max_eval_examples or evaluation)


def total_examples(train_rows: int, epochs: float) -> int:
    """Examples that a trial of `epochs` sees in all; service and trainer both count with this."""
    return max(1, round(epochs * train_rows))


def _lines(file: BinaryIO, path: str | Path) -> Iterator[tuple[int, bytes]]:
    line_number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        line_number += 1
        if len(raw) > MAX_LINE_BYTES:
            raise RowError(path, line_number, f"the line is longer than {MAX_LINE_BYTES} bytes")
        yield line_number, raw.removeprefix(_BOM) if line_number == 1 else raw


def _parse(raw: bytes, path: str | Path, line_number: int) -> Row:
    try:
        value = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RowError(path, line_number, f"not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise RowError(path, line_number, f"not JSON: {error.msg} at column {error.colno}") from error
    except (RecursionError, ValueError) as error:
        raise RowError(path, line_number, f"not JSON that can be read: {error}") from error
    if not isinstance(value, dict):
        raise RowError(path, line_number, f"a row is a JSON object, this is a {type(value).__name__}")
    instruction, source, output = (_text(value, name, path, line_number) for name in ("instruction", "input", "output"))
    if not instruction.strip():
        raise RowError(path, line_number, "`instruction` is empty")
    return Row(line_number, instruction, source, output)


def _text(value: dict[str, object], name: str, path: str | Path, line_number: int) -> str:
    text = value.get(name)
    if text is None and name == "input":
        return ""
    if text is None:
        raise RowError(path, line_number, f"`{name}` is missing")
    if not isinstance(text, str):
        raise RowError(path, line_number, f"`{name}` must be a string, this is a {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowError(path, line_number, f"`{name}` holds half a surrogate pair") from error
    return text
