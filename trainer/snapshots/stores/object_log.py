"""The log of a trial where files cannot grow: objects that follow one another, named by the time of their writing."""

import logging
import time
import uuid
from collections.abc import Callable, Sequence

_PART_EVERY_SECONDS = 30.0

_log = logging.getLogger("trainer.worker")


class ObjectLog:
    """See `LogFile`. Lines are collected for half a minute; a part that cannot be written goes with the next."""

    def __init__(self, put: Callable[[str, bytes], None], folder: str, size_bytes: int) -> None:
        self._put = put
        self._folder = folder
        self._size_bytes = size_bytes
        self._lines: list[bytes] = []
        self._written_at = time.monotonic()

    def tell(self) -> int:
        return self._size_bytes

    def write(self, line: bytes, /) -> None:
        self._lines.append(line)
        self._size_bytes += len(line)

    def flush(self) -> None:
        if time.monotonic() - self._written_at >= _PART_EVERY_SECONDS:
            self.close()

    def close(self) -> None:
        self._written_at = time.monotonic()
        if not self._lines:
            return
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        try:
            self._put(f"{self._folder}/{name}", b"".join(self._lines))
        except OSError as error:
            _log.warning("%d lines of a trial's log could not be written: %s", len(self._lines), error)
            return
        self._lines.clear()


def tail(get: Callable[[str], bytes], parts: Sequence[str], most_bytes: int) -> bytes:
    """At most so many bytes from the end of the `parts`, which are in order."""
    found: list[bytes] = []
    size_bytes = 0
    for part in reversed(parts):
        if size_bytes >= most_bytes:
            break
        found.insert(0, get(part))
        size_bytes += len(found[0])
    content = b"".join(found)
    return content[max(0, len(content) - most_bytes) :]
