"""What an attempt consumed, and what was noticed on the way."""

from typing import Annotated, Literal

from pydantic import Field

from trainer.spec.base import Frozen


class Usage(Frozen):
    """What an attempt consumed. Seconds are wall-clock seconds of the worker for this slice alone.

    `flops` are model FLOPs of training and evaluation together; `train_flops` those of training alone, and
    `train_hardware_flops` with what activation checkpointing computes again. `train_seconds` leaves out
    `data_seconds` (waiting for batches). `peak_flops_per_second` is one device's dense peak at the trial's dtype, None
    if the device is not in our table; `energy_joules` is None where no counter can be read.
    """

    examples: int = 0
    steps: int = 0
    tokens: int = 0
    flops: float = 0.0
    train_flops: float = 0.0
    train_hardware_flops: float = 0.0
    load_seconds: float = 0.0
    data_seconds: float = 0.0
    train_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    snapshot_seconds: float = 0.0
    peak_memory_bytes: int = 0
    energy_joules: float | None = None
    devices: Annotated[int, Field(ge=1)] = 1
    peak_flops_per_second: float | None = None

    def total_seconds(self) -> float:
        """Seconds the worker was occupied by the slice."""
        return (
            self.load_seconds + self.data_seconds + self.train_seconds + self.evaluate_seconds + self.snapshot_seconds
        )


class Notice(Frozen):
    """Something worth an event: what it is, the step at which it was seen, the values behind it, a sentence."""

    kind: Literal["divergence", "loss_spike", "oom_halved", "memory_growth", "memory_prediction", "device_health"]
    step: int | None = None
    values: dict[str, float] = Field(default_factory=dict)
    message: str = ""
