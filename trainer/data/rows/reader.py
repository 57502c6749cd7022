"""Rows of a file or folder, one after another in constant memory."""

from collections.abc import Iterator
from pathlib import Path

from trainer.data.rows.files import Part, data_files, scan_values
from trainer.data.rows.formats import RowReader
from trainer.data.rows.row import Row, RowError
from trainer.spec.trial import DataFormat


def read_rows(path: str | Path, format: DataFormat = "auto") -> Iterator[Row]:
    """Stream the rows of a file, or of a folder's shards by name; blank lines are skipped.

    Raises:
        RowError: a file cannot be read, a row is not valid, or there is no row at all.
    """
    for row in scan_rows(path, format):
        if isinstance(row, RowError):
            raise row
        yield row


def scan_rows(path: str | Path, format: DataFormat = "auto") -> Iterator[Row | RowError]:
    """As `read_rows`, but a problem takes the place of its row and the next row follows."""
    empty = True
    try:
        reader = RowReader(format)
        for file in data_files(path):
            for row in scan_part(Part(str(file)), reader):
                empty = False
                yield row
    except RowError as error:
        yield error
        return
    if empty:
        what = "folder" if Path(path).is_dir() else "file"
        yield RowError(path, 0, f"the {what} holds no rows")


def scan_part(part: Part, reader: RowReader) -> Iterator[Row | RowError]:
    """The rows and problems of one part of a file; for line numbers see `scan_values`."""
    for number, value in scan_values(part):
        if isinstance(value, RowError):
            yield value
            continue
        try:
            row: Row | RowError = reader.read(value, part.file, number)
        except RowError as error:
            row = error
        yield row
