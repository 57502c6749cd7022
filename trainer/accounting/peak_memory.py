"""The most memory in use since a moment that we choose."""

import resource
import sys
from pathlib import Path
from typing import Protocol

import torch

_RESET_PEAK_OF_RESIDENT_SET = "5"


class PeakMemory(Protocol):
    """A high-water mark that can be lowered to what is in use now."""

    def reset(self) -> None:
        """Start again from what is in use now."""

    def read_bytes(self) -> int:
        """The most that was in use since the last reset."""


class DevicePeak:
    """Memory that this process has allocated on a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def reset(self) -> None:
        """See `PeakMemory`."""
        torch.cuda.reset_peak_memory_stats(self._device)

    def read_bytes(self) -> int:
        """See `PeakMemory`."""
        return torch.cuda.max_memory_allocated(self._device)


class HostPeak:
    """Resident memory of this process. Where the system cannot reset the mark, it is the process's since its start."""

    def __init__(self) -> None:
        self._resettable = True

    def reset(self) -> None:
        """See `PeakMemory`."""
        if self._resettable:
            try:
                Path("/proc/self/clear_refs").write_text(_RESET_PEAK_OF_RESIDENT_SET, encoding="ascii")
            except OSError:
                self._resettable = False

    def read_bytes(self) -> int:
        """See `PeakMemory`."""
        if self._resettable:
            try:
                status = Path("/proc/self/status").read_text(encoding="ascii")
            except OSError:
                return process_peak_bytes()
            for line in status.splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return process_peak_bytes()


def peak_memory_of(device: torch.device) -> PeakMemory:
    """The mark for what runs on `device`."""
    return DevicePeak(device) if device.type == "cuda" else HostPeak()


def process_peak_bytes() -> int:
    """Largest resident memory of this process since its start."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
