"""How many rows there are, and how many of them a trial sees. Service and trainer both count with this."""

from itertools import islice
from pathlib import Path

from trainer.data.rows.blocks import count_lines, exceed
from trainer.data.rows.files import data_files, file_kind, parquet_rows
from trainer.data.rows.reader import read_rows
from trainer.spec import DataSpec
from trainer.spec.trial import DataFormat

#: JSON lines above either are counted without looking at every row
_COUNT_BYTES = 256 * 1024 * 1024
_COUNT_LINES = 2_000_000
_CHECKED_ROWS = 1000


def count_rows(path: str | Path, format: DataFormat = "auto") -> int:
    """Number of rows, each of them checked. Raises RowError as `read_rows` does."""
    return sum(1 for _ in read_rows(path, format))


def count_rows_quickly(path: str | Path, format: DataFormat = "auto") -> int:
    """Number of rows; of Parquet and of large JSON lines only the first 1000 are checked.

    Raises:
        RowError: as `read_rows` for the rows that were looked at.
    """
    files = data_files(path)
    if file_kind(files[0]) != "parquet" and not exceed(files, most_bytes=_COUNT_BYTES, most_lines=_COUNT_LINES):
        return count_rows(path, format)
    for _ in islice(read_rows(path, format), _CHECKED_ROWS):
        pass
    return sum(parquet_rows(file) if file_kind(file) == "parquet" else count_lines(file) for file in files)


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
    """Examples that a trial of `epochs` sees in all."""
    return max(1, round(epochs * train_rows))
