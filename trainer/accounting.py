"""What a slice costs: FLOPs by formula, seconds by phase, peak memory."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from trainer.spec import Usage

Phase = Literal["load", "train", "evaluate", "snapshot"]


@dataclass(frozen=True)
class ModelShape:
    """What the FLOP formulas need to know of a base model.

    `matmul_parameters` counts weights of linear layers with the output head and without embeddings; `attention_width`
    is heads x head size.
    """

    matmul_parameters: int
    layers: int
    attention_width: int

    def forward_flops(self, adapter_parameters: int, tokens: int, squared_tokens: int) -> float:
        """FLOPs of a forward pass: 2N + 2n a token, and 4 x layers x width x length^2 a row for attention."""
        return 2.0 * (self.matmul_parameters + adapter_parameters) * tokens + self._attention(squared_tokens)

    def train_flops(self, adapter_parameters: int, tokens: int, squared_tokens: int) -> float:
        """FLOPs of forward and backward of LoRA: 4N + 6n + 3A a token.

        Frozen weights need no weight gradient (4N, not 6N), adapters do (6n), attention has no weights (3A). What
        activation checkpointing recomputes is not counted: this is model FLOPs, not hardware FLOPs.
        """
        linear = (4.0 * self.matmul_parameters + 6.0 * adapter_parameters) * tokens
        return linear + 3.0 * self._attention(squared_tokens)

    def _attention(self, squared_tokens: int) -> float:
        return 4.0 * self.layers * self.attention_width * squared_tokens


@dataclass
class Meter:
    """Adds up what one attempt of a slice consumes."""

    examples: int = 0
    steps: int = 0
    tokens: int = 0
    flops: float = 0.0
    _seconds: dict[Phase, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, phase: Phase) -> Iterator[None]:
        """Count the seconds of the block to `phase`, also when it fails."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[phase] = self._seconds.get(phase, 0.0) + time.perf_counter() - start

    def tokens_per_second(self) -> float:
        """Training tokens without padding, per second of training."""
        return self.tokens / self._seconds["train"] if self._seconds.get("train") else 0.0

    def usage(self) -> Usage:
        """The sums so far."""
        return Usage(
            examples=self.examples,
            steps=self.steps,
            tokens=self.tokens,
            flops=self.flops,
            load_seconds=self._seconds.get("load", 0.0),
            train_seconds=self._seconds.get("train", 0.0),
            evaluate_seconds=self._seconds.get("evaluate", 0.0),
            snapshot_seconds=self._seconds.get("snapshot", 0.0),
            peak_memory_bytes=peak_memory_bytes(),
        )


def peak_memory_bytes() -> int:
    """Largest memory use of this process so far: allocated device memory on CUDA, resident memory elsewhere."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def memory_bytes() -> int:
    """Memory in use now: allocated device memory on CUDA, resident memory elsewhere (its peak without /proc)."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    try:
        resident_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return peak_memory_bytes()
    return resident_pages * resource.getpagesize()
