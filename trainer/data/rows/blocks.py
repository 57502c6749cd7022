"""Lines of files in blocks, without looking at what they say: in bounded memory, however long or many they are."""

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from trainer.data.rows.files import file_kind, most_unpacked_bytes, require_sane
from trainer.data.rows.row import unreadable

_BLOCK_BYTES = 1 << 20
#: one match a line that is not blank
_FROM_FIRST_WORD = re.compile(rb"\S[^\n]*")


def count_lines(path: Path) -> int:
    """Lines of a file of JSON lines that are not blank. Raises RowError."""
    lines, counted = 0, False
    for block in _blocks(path):
        # `counted`: the line that goes on from the block before is one of `lines` already.
        start = (block.find(b"\n") if b"\n" in block else len(block)) if counted else 0
        lines += sum(1 for _ in _FROM_FIRST_WORD.finditer(block, start))
        last = block.rfind(b"\n") + 1
        counted = bool(block[last:].strip()) or (counted and last == 0)
    return lines


def exceed(paths: Iterable[Path], *, most_bytes: int, most_lines: int) -> bool:
    """Whether files of JSON lines hold more than this in all, unpacked; read until it is known. Raises RowError."""
    size_bytes = lines = 0
    for path in paths:
        for block in _blocks(path):
            size_bytes += len(block)
            lines += block.count(b"\n")
            if size_bytes > most_bytes or lines > most_lines:
                return True
    return False


def _blocks(path: Path) -> Iterator[bytes]:
    try:
        if file_kind(path) == "jsonl.gz":
            position, most_bytes = 0, most_unpacked_bytes(path)
            with gzip.open(path, "rb") as unpacked:
                while block := unpacked.read(_BLOCK_BYTES):
                    position += len(block)
                    require_sane(path, position, most_bytes)
                    yield block
        else:
            with path.open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    yield block
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error
