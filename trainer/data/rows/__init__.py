"""Rows on disk: formats, reading, counting, splitting. No torch here; pyarrow only while Parquet is read."""

from trainer.data.rows.counts import count_rows, count_rows_quickly, example_counts, split_sizes, total_examples
from trainer.data.rows.files import MAX_LINE_BYTES, Part, data_files, file_parts, lines_before
from trainer.data.rows.formats import RowReader
from trainer.data.rows.reader import read_rows, scan_part, scan_rows
from trainer.data.rows.row import TEMPLATE, FormatName, Message, Role, Row, RowError, UnreadableError, unreadable

__all__ = [
    "MAX_LINE_BYTES",
    "TEMPLATE",
    "FormatName",
    "Message",
    "Part",
    "Role",
    "Row",
    "RowError",
    "RowReader",
    "UnreadableError",
    "count_rows",
    "count_rows_quickly",
    "data_files",
    "example_counts",
    "file_parts",
    "lines_before",
    "read_rows",
    "scan_part",
    "scan_rows",
    "split_sizes",
    "total_examples",
    "unreadable",
]
