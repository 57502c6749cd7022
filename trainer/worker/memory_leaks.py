"""Does a worker's memory grow from slice to slice? Then something leaks, and the worker is to be replaced."""

import logging
import resource
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch

from trainer.accounting.meter import memory_bytes
from trainer.spec import Notice

_log = logging.getLogger("trainer.worker")

#: readings that are not looked at: caches fill, libraries load
_WARM_UP = 5
_WINDOW = 10
_MEBIBYTE = 2**20
#: growth over the window that may have other reasons; a host's allocator and page cache are noisier than a GPU's
_MARGIN_BYTES = {"cuda": 64 * _MEBIBYTE, "cpu": 256 * _MEBIBYTE}


class LeakWatch:
    """Takes the memory that is in use after each slice, without what is known to be needed.

    Growth is a leak when in the last ten readings the lowest of the second five lies above the lowest of the first
    five by more than the margin, and the lowest of each pair above that of the pair before: one slice that needed
    more, or a cache that filled, is no leak.
    """

    def __init__(self, device: torch.device, margin_bytes: int | None = None) -> None:
        self._cuda = device.type == "cuda"
        self._margin_bytes = _MARGIN_BYTES[device.type] if margin_bytes is None else margin_bytes
        self._readings: deque[int] = deque(maxlen=_WINDOW)
        self._seen = 0

    def restart(self) -> None:
        """Forget the readings: another base is loaded."""
        self._readings.clear()
        self._seen = 0

    def read(self, known_bytes: int) -> Notice | None:
        """Take a reading, of which `known_bytes` are accounted for; a notice if the worker leaks."""
        left = (memory_bytes() if self._cuda else private_memory_bytes()) - known_bytes
        _log.info("%d bytes of memory are in use beside the trials that are resident", left)
        self._seen += 1
        if self._seen > _WARM_UP:
            self._readings.append(left)
        growth = _growth(self._readings)
        if growth is None or growth <= self._margin_bytes:
            return None
        values = {"before_bytes": float(self._readings[0]), "after_bytes": float(left), "growth_bytes": float(growth)}
        message = (
            f"memory grew by {growth / _MEBIBYTE:.0f} MiB over {_WINDOW} slices, more than "
            f"{self._margin_bytes / _MEBIBYTE:.0f} MiB; the worker is replaced"
        )
        return Notice(kind="memory_growth", values=values, message=message)


def private_memory_bytes() -> int:
    """Resident memory of this process that is no mapped file: data sets and models on disk are read through those."""
    try:
        _, resident_pages, shared_pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[:3]
    except OSError:
        return memory_bytes()
    return (int(resident_pages) - int(shared_pages)) * resource.getpagesize()


def _growth(readings: Sequence[int]) -> int | None:
    """How far the floor rose over a whole window; None if it did not rise all the time."""
    window = list(readings)
    if len(window) < _WINDOW:
        return None
    pairs = [min(window[start : start + 2]) for start in range(0, _WINDOW, 2)]
    if any(later <= earlier for earlier, later in pairwise(pairs)):
        return None
    half = _WINDOW // 2
    return min(window[half:]) - min(window[:half])
