"""What a slice really used beside what was predicted for it."""

import torch

from trainer.accounting.meter import Meter, memory_bytes
from trainer.memory.micro_batch import gib
from trainer.memory.peak_estimate import MemoryPrediction
from trainer.spec import Notice

#: a smaller rise of a host's resident memory says more about its allocator than about the trial
_LEAST_RISE_BYTES = {"cuda": 1, "cpu": 64 * 2**20}


class MemoryRecord:
    """Measures from the moment before a trial is admitted to the end of its slice.

    On CUDA the peak of allocated memory, on a CPU that of resident memory, which tells something only if the slice
    went beyond what loading needed, and by enough. What was in use before, other trials included, is left out, so
    there is nothing to tell while trials take turns.
    """

    def __init__(self, device: torch.device, meter: Meter, prediction: MemoryPrediction, *, resident: bool) -> None:
        """Call it just before the trial is admitted; `resident`: it is on the device already."""
        meter.device.settle()
        self._meter = meter
        self._prediction = prediction
        self._loading_bytes = meter.peak_memory_bytes
        self._before_bytes = memory_bytes() - (prediction.resting if resident else 0)
        self._least_rise_bytes = _LEAST_RISE_BYTES[device.type]

    def notice(self) -> Notice | None:
        """Prediction and measurement so far; None if nothing meaningful was measured."""
        self._meter.device.settle()
        peak = self._meter.peak_memory_bytes
        rise = peak - self._before_bytes
        if peak <= self._loading_bytes or rise < self._least_rise_bytes:
            return None
        predicted, measured = self._prediction.total, self._prediction.base + rise
        values = {
            "predicted_bytes": float(predicted),
            "measured_bytes": float(measured),
            "relative_error": predicted / measured - 1,
        }
        message = f"peak memory was predicted as {gib(predicted)} and measured as {gib(measured)}"
        return Notice(kind="memory_prediction", values=values, message=message)
