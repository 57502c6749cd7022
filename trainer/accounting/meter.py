"""What a slice costs: FLOPs by formula, seconds by phase, and what its device used while the slice had it."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import torch

from trainer.accounting.nvml import Gpus, HealthWatch
from trainer.accounting.peak_memory import PeakMemory, peak_memory_of, process_peak_bytes
from trainer.spec import Usage

Phase = Literal["load", "train", "evaluate", "snapshot"]


@dataclass(frozen=True)
class ModelShape:
    """What the FLOP formulas need to know of a dense base model.

    `matmul_parameters` counts weights of linear layers with the output head and without embeddings, and
    `head_parameters` those of the head alone; `attention_width` is heads x head size.

    The formulas take tokens without padding, learned tokens (those whose logits enter the loss; a prompt's do not, so
    the head counts for the learned ones only) and the sum of the squared lengths of the examples. `adapter_parameters`
    is what is trained: n of LoRA. What DoRA's norms and the frozen half of PiSSA and OLoRA add is left out.
    """

    matmul_parameters: int
    head_parameters: int
    layers: int
    attention_width: int

    def forward_flops(
        self, adapter_parameters: int, *, tokens: float, learned_tokens: float, squared_tokens: float
    ) -> float:
        """FLOPs of a forward pass: 2N + 2n a token, and A = 4 x layers x width x length^2 an example for attention."""
        return self._linear(2, 2, adapter_parameters, tokens, learned_tokens) + self._attention(squared_tokens)

    def train_flops(
        self, adapter_parameters: int, *, tokens: float, learned_tokens: float, squared_tokens: float
    ) -> float:
        """Model FLOPs of forward and backward of LoRA: 4N + 6n a token and 3A.

        Frozen weights need no weight gradient (4N, not 6N), adapters do (6n), attention has no weights (3A).
        """
        return self._linear(4, 6, adapter_parameters, tokens, learned_tokens) + 3 * self._attention(squared_tokens)

    def recomputed_flops(self, adapter_parameters: int, *, tokens: float, squared_tokens: float) -> float:
        """What activation checkpointing computes again: the forward pass of the layers, without the head."""
        return self._linear(2, 2, adapter_parameters, tokens, 0) + self._attention(squared_tokens)

    def _linear(
        self, frozen: int, trained: int, adapter_parameters: int, tokens: float, learned_tokens: float
    ) -> float:
        body = self.matmul_parameters - self.head_parameters
        return float((frozen * body + trained * adapter_parameters) * tokens) + float(
            frozen * self.head_parameters * learned_tokens
        )

    def _attention(self, squared_tokens: float) -> float:
        return 4.0 * self.layers * self.attention_width * squared_tokens


class StepWork(Protocol):
    """What an optimizer step consumed."""

    @property
    def examples(self) -> int:
        """Training examples."""

    @property
    def tokens(self) -> int:
        """Tokens without padding."""

    @property
    def flops(self) -> float:
        """Model FLOPs."""

    @property
    def recomputed_flops(self) -> float:
        """What activation checkpointing computed again."""

    @property
    def data_seconds(self) -> float:
        """The part of the step that was waiting for its batches."""


class DeviceUse:
    """Books a worker's energy and peak memory to the slice that has the device.

    Slices take turns on one worker. From the moment one gets its turn to the moment another gets one, the growth of
    the energy counter and the high-water mark of memory are its own. A slice alone is never interrupted by this. The
    counter moves in steps of 20 to 100 ms, so turns shorter than that are right in the sum, not one by one.
    """

    def __init__(self, device: torch.device, gpus: Gpus) -> None:
        """`gpus` are those that the worker computes on."""
        self.health = HealthWatch(gpus)
        self._gpus = gpus
        self._peak: PeakMemory = peak_memory_of(device)
        self._meter: Meter | None = None
        self._joules: float | None = None

    def turn_to(self, meter: "Meter") -> None:
        """From now on the device works for `meter`."""
        if self._meter is not meter:
            self.settle()
            self._meter = meter

    def settle(self) -> None:
        """Book to whoever has the device what it used since it was settled last."""
        before, now = self._joules, self._gpus.energy_joules()
        if self._meter is not None:
            used = None if before is None or now is None else now - before
            self._meter.book(self._peak.read_bytes(), used)
        self._peak.reset()
        self._joules = now


@dataclass
class Meter:
    """Adds up what one attempt of a slice consumes.

    A step's phase is timed on the host. That is the device's time as well, since each step and each batch of an
    evaluation reads its loss back; only a step's weight update may still run, and is then counted with what follows.
    """

    device: DeviceUse
    devices: int = 1
    peak_flops_per_second: float | None = None
    examples: int = 0
    steps: int = 0
    tokens: int = 0
    evaluate_flops: float = 0.0
    train_flops: float = 0.0
    recomputed_flops: float = 0.0
    peak_memory_bytes: int = 0
    energy_joules: float | None = 0.0
    data_seconds: float = 0.0
    _seconds: dict[Phase, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, phase: Phase) -> Iterator[None]:
        """Count the seconds of the block to `phase`, also when it fails; the device works for this meter."""
        self.device.turn_to(self)
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[phase] = self._seconds.get(phase, 0.0) + time.perf_counter() - start

    def book(self, peak_memory_bytes: int, joules: float | None) -> None:
        """Count what the device used in a turn; energy is unknown from the first turn whose energy is."""
        self.peak_memory_bytes = max(self.peak_memory_bytes, peak_memory_bytes)
        spent = self.energy_joules
        self.energy_joules = None if spent is None or joules is None else spent + joules

    def count_step(self, step: StepWork) -> None:
        """Count a step that was timed as `train`."""
        self.steps += 1
        self.examples += step.examples
        self.tokens += step.tokens
        self.train_flops += step.flops
        self.recomputed_flops += step.recomputed_flops
        self.data_seconds += step.data_seconds

    def tokens_per_second(self) -> float:
        """Training tokens without padding, per second of training and of waiting for batches."""
        return self.tokens / self._seconds["train"] if self._seconds.get("train") else 0.0

    def usage(self) -> Usage:
        """The sums so far."""
        self.device.settle()
        return Usage(
            examples=self.examples,
            steps=self.steps,
            tokens=self.tokens,
            flops=self.train_flops + self.evaluate_flops,
            train_flops=self.train_flops,
            train_hardware_flops=self.train_flops + self.recomputed_flops,
            load_seconds=self._seconds.get("load", 0.0),
            data_seconds=self.data_seconds,
            train_seconds=max(0.0, self._seconds.get("train", 0.0) - self.data_seconds),
            evaluate_seconds=self._seconds.get("evaluate", 0.0),
            snapshot_seconds=self._seconds.get("snapshot", 0.0),
            peak_memory_bytes=self.peak_memory_bytes,
            energy_joules=self.energy_joules,
            devices=self.devices,
            peak_flops_per_second=self.peak_flops_per_second,
        )


def memory_bytes() -> int:
    """Memory in use now: allocated device memory on CUDA, resident memory elsewhere (its peak without /proc)."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    try:
        resident_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return process_peak_bytes()
    return resident_pages * resource.getpagesize()
