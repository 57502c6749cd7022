"""Which micro-batch a trial gets: the largest whose predicted peak fits the device model.

The choice follows from spec, data and device model, never from what is free at the moment, so that a trial has the same
micro-batch, and the same losses, whoever its neighbours are.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.common.errors import MemoryShortage
from trainer.data.dataset import Judged, TrialData
from trainer.memory.peak_estimate import Architecture, BatchSize, MemoryPrediction, predict_memory
from trainer.model.base_model import BaseModel
from trainer.spec import DataFingerprints, DataSpec, TrialSpec

#: share of a device's memory that is never planned with: context, libraries, kernels' workspace, fragmentation; on a
#: CPU the operating system and everybody else
_RESERVE = {"cuda": 0.10, "cpu": 0.25}
#: examples of a batch at most, see `TrainingSettings`
_MOST_EXAMPLES = 4096
_CPU = torch.device("cpu")
_CONFIG_KEYS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
    "tie_word_embeddings",
)


@dataclass(frozen=True)
class MemoryPlan:
    """How a trial is run on this device model: examples at once in training and evaluation, and the predicted peak.

    `halved` says that memory ran out in earnest before, with twice the micro-batch.
    """

    micro_batch: int
    eval_batch: int
    prediction: MemoryPrediction
    halved: bool = False


class Admission:
    """Plans the trials of one base on one device."""

    def __init__(self, architecture: Architecture, attention: str, usable_bytes: int) -> None:
        self.usable_bytes = usable_bytes
        self._architecture = architecture
        self._attention = attention
        self._longest: dict[tuple[DataSpec, DataFingerprints, str], NDArray[np.int64]] = {}
        self._sizes: dict[tuple[DataSpec, DataFingerprints, str, int], BatchSize] = {}

    def plan(self, spec: TrialSpec, data: TrialData, *known: int | None) -> MemoryPlan:
        """The largest micro-batch that fits: `training.micro_batch`, or it halved so and so often.

        `known` are the micro-batch of the snapshot that the trial goes on from and the one that memory is known to
        allow, where there are such; the smaller one is kept if it fits.

        Raises:
            MemoryShortage: not even one example at a time fits.
        """
        fresh = self._largest(spec, data, _most(spec))
        most = min((size for size in known if size is not None), default=fresh.micro_batch)
        return fresh if most >= fresh.micro_batch else self._largest(spec, data, most, halved=True)

    def halved(self, plan: MemoryPlan, spec: TrialSpec, data: TrialData) -> MemoryPlan | None:
        """What to try after memory ran out under `plan`; None if that was tried already."""
        if plan.halved or plan.micro_batch == 1:
            return None
        return self._largest(spec, data, plan.micro_batch // 2, halved=True)

    def _largest(self, spec: TrialSpec, data: TrialData, most: int, *, halved: bool = False) -> MemoryPlan:
        shrunk = max(1, _most(spec) // most)
        smallest = None
        for micro_batch in _halvings(most):
            train = self._size(spec, data, "train", micro_batch)
            for eval_batch in _halvings(max(1, spec.training.eval_batch // shrunk)):
                evaluation = self._evaluated(spec, data, eval_batch)
                smallest = predict_memory(
                    self._architecture, spec, attention=self._attention, train=train, evaluation=evaluation
                )
                if smallest.total <= self.usable_bytes:
                    return MemoryPlan(micro_batch, eval_batch, smallest, halved)
                if smallest.evaluation <= smallest.training:
                    break
        assert smallest is not None
        raise MemoryShortage(
            f"the trial needs {gib(smallest.total)} with one example at a time, of which {gib(smallest.base)} are the "
            f"model, and {gib(self.usable_bytes)} of this device may be used; lower data.max_length or "
            "parameters.lora_r, set training.activation_checkpointing, or raise training.ranks",
            predicted_bytes=smallest.total,
        )

    def _evaluated(self, spec: TrialSpec, data: TrialData, count: int) -> BatchSize:
        """The larger of the batches of the `count` longest evaluation and test examples."""
        sizes = [self._size(spec, data, "evaluation", count)]
        if data.test is not None:
            sizes.append(self._size(spec, data, "test", count))
        return max(sizes, key=lambda size: size.rows * size.length)

    def _size(self, spec: TrialSpec, data: TrialData, part: Literal["train"] | Judged, count: int) -> BatchSize:
        """The batch of the `count` longest examples."""
        selection = (spec.data, data.fingerprints, part)
        key = (*selection, count)
        if key not in self._sizes:
            examples = data.train if part == "train" else data.judged(part)
            order = self._longest.get(selection)
            if order is None:
                order = self._longest[selection] = _longest_first(examples.lengths)
            batch = examples.batch(order[:count], _CPU)
            rows, length = batch.input_ids.shape
            self._sizes[key] = BatchSize(rows, length, batch.response_tokens)
        return self._sizes[key]


def architecture_of(base: BaseModel) -> Architecture:
    """What predictions need to know of a base that has no adapter yet."""
    config: Any = base.model.config.get_text_config()
    linears: dict[str, tuple[int, int]] = {}
    for name in base.linear_modules:
        module: Any = base.model.get_submodule(name)
        linears[name] = (module.in_features, module.out_features)
    described = Architecture.from_config({key: getattr(config, key, None) for key in _CONFIG_KEYS})
    body = sum(inputs * outputs for inputs, outputs in described.linears.values())
    rest = described.parameters - body
    return replace(
        described,
        parameters=rest + sum(inputs * outputs for inputs, outputs in linears.values()),
        linears=linears,
        logits_everywhere=not base.has_head_apart,
    )


def usable_memory_bytes(device: torch.device) -> int:
    """What trials may use of the device: its total memory without the reserve, whatever is free now."""
    return int(total_memory_bytes(device) * (1 - _RESERVE[device.type]))


def total_memory_bytes(device: torch.device) -> int:
    """Memory of the device model; on a CPU that of the machine or of the control group, whichever is less."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limit = Path(name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if limit.isdigit():
            total = min(total, int(limit))
    return total


def gib(size_bytes: float) -> str:
    """For sentences: 1.25 GiB."""
    return f"{size_bytes / 2**30:.2f} GiB"


def _most(spec: TrialSpec) -> int:
    training = spec.training
    return min(training.micro_batch, -(-spec.parameters.effective_batch // training.ranks))


def _halvings(most: int) -> Iterator[int]:
    while most >= 1:
        yield most
        most //= 2


def _longest_first(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(lengths) > _MOST_EXAMPLES:
        chosen = np.argpartition(-lengths, _MOST_EXAMPLES)[:_MOST_EXAMPLES]
        return chosen[np.argsort(-lengths[chosen], kind="stable")]
    return np.argsort(-lengths, kind="stable")
