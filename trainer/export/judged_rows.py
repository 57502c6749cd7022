"""The rows that a delivered model is judged on and calibrated with: those of the trial's split, in files."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.data.rows import FormatName, Part, RowError, count_rows_quickly, data_files, read_rows
from trainer.data.rows.files import scan_values
from trainer.data.split import split_rows
from trainer.spec import DataSpec

#: as many rows as merge and quantize take by default, and some in reserve for those without a response
_EVALUATION_ROWS = 256
_CALIBRATION_ROWS = 512


@dataclass(frozen=True)
class JudgedRows:
    """Files of JSON lines, and the format that both are in."""

    evaluation: Path
    calibration: Path
    format: FormatName


def write_judged_rows(data: DataSpec, folder: Path) -> JudgedRows:
    """Rows that the trial was evaluated with, and rows that it was trained on, in the order of its split.

    Raises:
        DataError: the data cannot be read.
    """
    train_rows = count_rows_quickly(data.train, data.format)
    held_out = None if data.eval is None else count_rows_quickly(data.eval, data.format)
    train, evaluation = split_rows(data, train_rows, held_out)
    written = JudgedRows(
        evaluation=folder / "evaluation.jsonl",
        calibration=folder / "calibration.jsonl",
        format=next(iter(read_rows(data.eval or data.train, data.format))).format,
    )
    _write(data.eval or data.train, evaluation[:_EVALUATION_ROWS], written.evaluation)
    _write(data.train, train[:_CALIBRATION_ROWS], written.calibration)
    return written


def _write(source: str, wanted: NDArray[np.int64], target: Path) -> None:
    places = {int(row): place for place, row in enumerate(wanted)}
    lines: dict[int, str] = {}
    for row, value in enumerate(_values(source)):
        if row in places:
            lines[places[row]] = json.dumps(value, ensure_ascii=False)
        if len(lines) == len(places):
            break
    target.write_text("".join(f"{lines[place]}\n" for place in sorted(lines)), encoding="utf-8")


def _values(source: str) -> Iterator[object]:
    for file in data_files(source):
        for _, value in scan_values(Part(str(file))):
            if isinstance(value, RowError):
                raise value
            yield value
