"""What a trial is between two steps, in parts: taken out of DeepSpeed's optimizer and put into it."""

from collections.abc import Mapping

import torch

from trainer.distributed.ranks import Ranks
from trainer.training.engines.zero.deepspeed import Partitioned, ZeroOptimizer
from trainer.training.engines.zero.slots import Slots

WEIGHT, MOMENTS = "weight", ("exp_avg", "exp_avg_sq")
FIELDS = (WEIGHT, *MOMENTS)

#: This rank's part of a trial: for every sub-group of DeepSpeed's optimizer and every field a flat tensor on the host.
Parts = list[dict[str, torch.Tensor]]


class SharedState:
    """Reads and writes this rank's parts of all adapters and of their AdamW moments, without touching the base.

    DeepSpeed keeps the trained parameters of a sub-group in one flat float32 tensor, cut from each parameter at
    this rank's place. That tensor is written directly, with both moments and the count of steps, and so is the copy
    that forward passes gather from where there is one. No rank needs another for it.
    """

    def __init__(self, optimizer: ZeroOptimizer, slots: Slots, ranks: Ranks) -> None:
        """`optimizer` is DeepSpeed's, around a torch AdamW over the weights of `slots`."""
        self._optimizer = optimizer
        self._slots = slots
        self._ranks = ranks
        names = {id(parameter): name for name, parameter in slots.weights.items()}
        self._groups = [[(names[id(weight)], weight) for weight in group] for group in optimizer.fp16_groups]

    def cut(self, tensors: Mapping[str, Mapping[str, torch.Tensor]], rank: int) -> Parts:
        """This rank's parts of a trial of LoRA rank `rank`, given whole: field to PEFT name to tensor; zeros elsewhere.

        Raises:
            SnapshotError: a shape is wrong.
        """
        wide = {field: self._slots.widened(tensors.get(field, {}), rank) for field in FIELDS}
        return [
            {field: torch.cat([self._part(wide[field][name], weight) for name, weight in group]) for field in FIELDS}
            for group in self._groups
        ]

    @torch.no_grad()
    def put(self, parts: Parts, step: int) -> None:
        """Let the optimizer hold `parts` as after `step` steps. No gradient of what was there before stays."""
        # Gathered weights, also those that persist between steps, would go on showing what was there before.
        self._optimizer.empty_partition_cache()
        self._optimizer.zero_grad()
        for number, part in enumerate(parts):
            flat = self._optimizer.fp32_partitioned_groups_flat[number]
            flat.data.copy_(part[WEIGHT])
            self._optimizer.fp16_partitioned_groups_flat[number].data.copy_(flat.data)
            state = self._optimizer.optimizer.state[flat]
            for moment in MOMENTS:
                state.setdefault(moment, torch.zeros_like(flat, requires_grad=False)).copy_(part[moment])
            state.setdefault("step", torch.zeros((), device=flat.device)).fill_(step)

    @torch.no_grad()
    def take(self) -> Parts:
        """A copy of what the optimizer holds."""
        return [
            {field: self._flat(number, field).to("cpu", copy=True) for field in FIELDS}
            for number in range(len(self._groups))
        ]

    def whole(self, field: str) -> dict[str, torch.Tensor]:
        """All ranks together: every allocated tensor of `field` by PEFT name on rank 0, nothing elsewhere."""
        gathered = {}
        for number, group in enumerate(self._groups):
            flats = self._ranks.collect(self._flat(number, field).detach())
            offset = 0
            for name, weight in group if flats else ():
                size = weight.partition_numel()
                rows, columns = self._slots.shape(name)
                flat = torch.cat([part[offset : offset + size] for part in flats])[: rows * columns]
                gathered[name] = flat.view(rows, columns)
                offset += size
        return gathered

    def squared_gradients(self) -> float:
        """Sum of the squares of this rank's part of the gradient that the next step would apply."""
        optimizer = self._optimizer
        if optimizer.offload_optimizer:
            gradients = [flat.grad for flat in optimizer.fp32_partitioned_groups_flat]
        else:
            gradients = [part for parts in optimizer.averaged_gradients.values() for part in parts]
        squares = torch.stack([torch.linalg.vector_norm(part, dtype=torch.float64) ** 2 for part in gradients])
        return float(squares.sum())

    def _flat(self, number: int, field: str) -> torch.Tensor:
        flat = self._optimizer.fp32_partitioned_groups_flat[number]
        return flat if field == WEIGHT else self._optimizer.optimizer.state[flat][field]

    def _part(self, full: torch.Tensor, weight: Partitioned) -> torch.Tensor:
        size = weight.partition_numel()
        part = torch.zeros(size)
        own = full.flatten()[self._ranks.rank * size : (self._ranks.rank + 1) * size]
        part[: len(own)] = own
        return part
