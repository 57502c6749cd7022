"""Which files hold the rows, and the values in them: JSON lines, plain or gzipped, and Parquet.

Every file can be read in parts that are independent of each other: byte ranges of JSON lines, row groups of Parquet.
"""

import gzip
import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

from trainer.data.rows.formats import COLUMNS
from trainer.data.rows.other_kinds import other_columns, other_file, other_files, other_line
from trainer.data.rows.row import RowError, unreadable

MAX_LINE_BYTES = 4 * 1024 * 1024
#: text shrinks to a tenth or so; what unpacks to more than this many times its size is made to fill a machine
_MAX_GZIP_RATIO = 100
_ALWAYS_UNPACKED_BYTES = 4 * 1024 * 1024
_MAX_BLANK_LINES = 10_000

FileKind = Literal["jsonl", "jsonl.gz", "parquet"]
_KINDS: tuple[FileKind, ...] = ("jsonl", "jsonl.gz", "parquet")
_BOM = b"\xef\xbb\xbf"
_PARQUET_ROWS_AT_ONCE = 32


@dataclass(frozen=True)
class Part:
    """Part of a file: `start` to `stop` in bytes (JSON lines; a line belongs to the part that it starts in) or in row
    groups (Parquet). A gzipped file is one part, and so is any file with `stop` None.
    """

    file: str
    start: int = 0
    stop: int | None = None


def file_kind(path: Path) -> FileKind:
    """How a file is read, by its name; everything that is not known is JSON lines.

    Raises:
        RowError: the name is of another kind of file.
    """
    name = path.name.lower()
    if (other := other_file(path)) is not None:
        raise RowError(path, 0, other)
    if name.endswith(".parquet"):
        return "parquet"
    if name.endswith(".gz"):
        if not name.endswith(".jsonl.gz"):
            raise RowError(path, 0, "only .jsonl.gz is read of gzipped files: one JSON object a line")
        return "jsonl.gz"
    return "jsonl"


def data_files(path: str | Path) -> list[Path]:
    """The file itself, or a folder's shards by name: files of one kind; names that start with . or _ are not rows.

    Raises:
        RowError: nothing is there, or the folder holds no shards or shards of several kinds.
    """
    root = Path(path)
    try:
        if not root.is_dir():
            root.stat()
            file_kind(root)
            return [root]
        names = sorted(child.name for child in root.iterdir() if child.is_file() and child.name[0] not in "._")
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    shards = {kind: [root / name for name in names if name.lower().endswith(f".{kind}")] for kind in _KINDS}
    kinds = [kind for kind in _KINDS if shards[kind]]
    if not kinds:
        other = other_files(root / name for name in names)
        raise RowError(path, 0, f"the folder holds no shards: no .jsonl, .jsonl.gz or .parquet file{other}")
    if len(kinds) > 1:
        raise RowError(path, 0, f"the folder's shards are of several kinds ({', '.join(kinds)}); keep one")
    return shards[kinds[0]]


def file_parts(path: Path, part_bytes: int) -> list[Part]:
    """Cut a file into equal parts of up to about `part_bytes`, in the order of its rows. Raises RowError."""
    kind = file_kind(path)
    try:
        size_bytes = path.stat().st_size
        if kind == "jsonl.gz" or size_bytes <= part_bytes:
            return [Part(str(path))]
        if kind == "jsonl":
            step_bytes = -(-size_bytes // -(-size_bytes // part_bytes))
            starts = range(0, size_bytes, step_bytes)
            return [Part(str(path), start, min(start + step_bytes, size_bytes)) for start in starts]
    except OSError as error:
        raise unreadable(path, error) from error
    groups = row_groups(path)
    per_part = max(1, groups * part_bytes // size_bytes)
    return [Part(str(path), start, min(start + per_part, groups)) for start in range(0, groups, per_part)]


def scan_values(part: Part) -> Iterator[tuple[int, object | RowError]]:
    """(number, value) of every row of a part, with a RowError in place of a value that cannot be read.

    Numbers are lines or Parquet rows of the file, from 1; in a byte range that does not start at 0 they count from
    the range's first line. A file that cannot be read further ends with (0, RowError).
    """
    path = Path(part.file)
    try:
        kind = file_kind(path)
        if kind == "parquet":
            yield from _scan_parquet(path, part)
        elif kind == "jsonl.gz":
            with gzip.open(path, "rb") as unpacked:
                yield from _scan_lines(cast(BinaryIO, unpacked), path, Part(part.file), most_unpacked_bytes(path))
        else:
            with path.open("rb") as file:
                yield from _scan_lines(file, path, part)
    except RowError as error:
        yield 0, error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        # gzip and pyarrow report damaged files as OSError, EOFError, zlib.error or (ArrowInvalid) ValueError.
        yield 0, unreadable(path, error)


def lines_before(part: Part) -> int:
    """Number of lines of its file before the first line of a part, which is a byte range."""
    if part.start == 0:
        return 0
    # The first line of the part begins behind the first newline at or after the byte before `start`.
    lines, left = 1, part.start - 1
    with Path(part.file).open("rb") as file:
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            lines += block.count(b"\n")
            left -= len(block)
    return lines


def parquet_rows(path: Path) -> int:
    """Rows of a Parquet file by its metadata. Raises RowError."""
    return _parquet_metadata(path)[0]


def row_groups(path: Path) -> int:
    """Row groups of a Parquet file. Raises RowError."""
    return _parquet_metadata(path)[1]


def _parquet_metadata(path: Path) -> tuple[int, int]:
    from pyarrow.parquet import read_metadata

    try:
        metadata = read_metadata(path)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    return metadata.num_rows, metadata.num_row_groups


def _scan_parquet(path: Path, part: Part) -> Iterator[tuple[int, object | RowError]]:
    from pyarrow.parquet import ParquetFile

    # A buffer instead of whole column chunks keeps memory flat however large a row group is.
    with ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
        names = file.schema_arrow.names
        columns = [name for name in COLUMNS if name in names]
        if (other := other_columns(set(names))) is not None:
            raise RowError(path, 0, f"each of its rows is {other}")
        if not columns:
            listed = ", ".join(f"`{name}`" for name in names[:8])
            raise RowError(path, 0, f"no known format: its columns are {listed[:300]}")
        groups = list(range(part.start, file.num_row_groups if part.stop is None else part.stop))
        number = sum(file.metadata.row_group(group).num_rows for group in range(part.start))
        if not groups:
            return
        for batch in file.iter_batches(_PARQUET_ROWS_AT_ONCE, groups, columns, use_threads=False):
            if batch.nbytes > _PARQUET_ROWS_AT_ONCE * MAX_LINE_BYTES:
                raise RowError(path, 0, f"rows {number + 1} and on are longer than {MAX_LINE_BYTES} bytes each")
            for value in batch.to_pylist():
                number += 1
                yield number, value


def most_unpacked_bytes(path: Path) -> int:
    """What a gzipped file may hold. Raises OSError."""
    return max(_ALWAYS_UNPACKED_BYTES, _MAX_GZIP_RATIO * path.stat().st_size)


def require_sane(path: Path, position: int, most_bytes: float) -> None:
    """Raises RowError where more than `most_bytes` have been unpacked."""
    if position > most_bytes:
        raise RowError(path, 0, f"it unpacks to more than {_MAX_GZIP_RATIO} times its size; unpack it if that is meant")


def _scan_lines(
    file: BinaryIO, path: Path, part: Part, most_bytes: float = math.inf
) -> Iterator[tuple[int, object | RowError]]:
    position, number, blank = _first_line(file, part.start), 0, 0
    while part.stop is None or position < part.stop:
        raw = file.readline(MAX_LINE_BYTES + 1)
        if not raw:
            return
        number += 1
        position += len(raw)
        require_sane(path, position, most_bytes)
        if len(raw) > MAX_LINE_BYTES:
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(MAX_LINE_BYTES)
                position += len(raw)
                require_sane(path, position, most_bytes)
            yield number, RowError(path, number, f"the line is longer than {MAX_LINE_BYTES} bytes")
            continue
        if part.start == 0 and number == 1:
            raw = raw.removeprefix(_BOM)
        if raw.strip():
            blank = 0
            yield number, _parse(raw, path, number)
        elif (blank := blank + 1) > _MAX_BLANK_LINES:
            raise RowError(path, 0, f"more than {_MAX_BLANK_LINES} lines in a row are blank; remove them")


def _first_line(file: BinaryIO, start_bytes: int) -> int:
    """Go to the first line that starts at or after `start_bytes`; its position."""
    if start_bytes == 0:
        return 0
    position = file.seek(start_bytes - 1)
    while piece := file.readline(MAX_LINE_BYTES):
        position += len(piece)
        if piece.endswith(b"\n"):
            break
    return position


def _parse(raw: bytes, path: Path, number: int) -> object | RowError:
    try:
        return cast(object, json.loads(raw.decode("utf-8")))
    except UnicodeDecodeError as error:
        return RowError(path, number, f"not UTF-8 at byte {error.start}")
    except json.JSONDecodeError as error:
        hint = other_line(raw) if number == 1 else ""
        return RowError(path, number, f"not JSON: {error.msg} at column {error.colno}{hint}")
    except (RecursionError, ValueError) as error:
        return RowError(path, number, f"not JSON that can be read: {error}")
