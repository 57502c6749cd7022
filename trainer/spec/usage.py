"""What an attempt consumed, its sums over a trial or a study, and what was noticed on the way."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from trainer.spec.base import Frozen


class _Amounts(Frozen):
    """What simply adds up."""

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
    lost_seconds: float = 0.0


class Usage(_Amounts):
    """What an attempt consumed. Seconds are wall-clock seconds of the worker for this slice alone.

    `tokens` leaves padding out. `flops` are model FLOPs of training and evaluation together; `train_flops` those of
    training alone, and `train_hardware_flops` with what activation checkpointing computes again. `train_seconds`
    leaves out `data_seconds` (waiting for batches). `peak_memory_bytes` is the most that was in use while this slice
    had the device. `energy_joules` is that of all its devices, None where no counter can be read.
    `peak_flops_per_second` is one device's dense peak at the trial's dtype, None if the device is not in our table.
    `lost_seconds` are the service's estimate for an attempt that could not tell what it used, since its worker was
    lost: from its start until it was given up.
    """

    peak_memory_bytes: int = 0
    energy_joules: float | None = None
    devices: Annotated[int, Field(ge=1)] = 1
    peak_flops_per_second: float | None = None

    def total_seconds(self) -> float:
        """Seconds the worker was occupied by the slice."""
        return self.told_seconds() + self.lost_seconds

    def told_seconds(self) -> float:
        """Those of them that the worker measured."""
        return (
            self.load_seconds + self.data_seconds + self.train_seconds + self.evaluate_seconds + self.snapshot_seconds
        )

    def sums(self) -> "UsageSums":
        """This attempt as a sum of one."""
        trained_seconds = self.train_seconds + self.data_seconds
        peak = self.peak_flops_per_second
        return UsageSums(
            **self.model_dump(include=set(_Amounts.model_fields)),
            device_seconds=self.total_seconds() * self.devices,
            peak_memory_bytes=self.peak_memory_bytes,
            energy_joules=self.energy_joules if self.told_seconds() else 0.0,
            available_flops=trained_seconds * self.devices * (peak or 0.0) if peak or not trained_seconds else None,
        )


class UsageSums(_Amounts):
    """What several attempts consumed: those of a slice, a trial or a study. Adds up with `+`; the empty sum is zero.

    `device_seconds` are seconds times devices. `available_flops` is what the devices could have computed at their
    peaks while the trials trained or waited for batches. Where any attempt that measured its time does not know its
    energy or its peak, the sum does not either: it is None. `peak_memory_bytes` is the largest of them.
    """

    device_seconds: float = 0.0
    peak_memory_bytes: int = 0
    energy_joules: float | None = 0.0
    available_flops: float | None = 0.0

    def __add__(self, other: "UsageSums") -> "UsageSums":
        added = {
            name: _plus(getattr(self, name), getattr(other, name))
            for name in UsageSums.model_fields
            if name != "peak_memory_bytes"
        }
        return UsageSums(**added, peak_memory_bytes=max(self.peak_memory_bytes, other.peak_memory_bytes))

    def tokens_per_second(self) -> float | None:
        """Training tokens per second of training and of waiting for batches; None if nothing was trained."""
        seconds = self.train_seconds + self.data_seconds
        return self.tokens / seconds if seconds else None

    def mfu(self) -> float | None:
        """Model FLOPs utilization: `train_flops` over `available_flops`; None if a peak is unknown."""
        return _share(self.train_flops, self.available_flops)

    def hfu(self) -> float | None:
        """Hardware FLOPs utilization: `train_hardware_flops` over `available_flops`; None if a peak is unknown."""
        return _share(self.train_hardware_flops, self.available_flops)

    def compute_share(self) -> float | None:
        """Share of the time in which a model was computed (train and evaluate); None if no time passed.

        What a lost attempt computed nobody has: its time counts, and nothing in it.
        """
        compute_seconds = self.train_seconds + self.evaluate_seconds
        seconds = compute_seconds + self.load_seconds + self.data_seconds + self.snapshot_seconds + self.lost_seconds
        return _share(compute_seconds, seconds)


def sum_usage(usages: Iterable[Usage]) -> UsageSums:
    """The sum over any attempts, whatever their devices."""
    return sum((usage.sums() for usage in usages), UsageSums())


def _plus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _share(part: float, whole: float | None) -> float | None:
    return part / whole if whole else None


class Notice(Frozen):
    """Something worth an event: what it is, the step at which it was seen, the values behind it, a sentence."""

    kind: Literal[
        "divergence",
        "loss_spike",
        "oom_halved",
        "memory_growth",
        "memory_prediction",
        "device_health",
        "rows_left_out",
        "not_repeatable",
    ]
    step: int | None = None
    values: dict[str, float] = Field(default_factory=dict)
    message: str = ""
