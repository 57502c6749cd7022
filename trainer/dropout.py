"""Dropout whose masks come from private streams, so that no neighbour and no recompute can change them."""

from dataclasses import dataclass

import torch
from torch import nn

from trainer.keys import stream_key


@dataclass
class DropoutClock:
    """Where a trial is: the data position of the micro-batch in progress, None while nothing is dropped."""

    position: int | None = None


class KeyedDropout(nn.Module):
    """Dropout with probability `p` of adapter `module_name`, keyed by (seed, position, module).

    The mask is drawn anew in every forward pass from its key, so activation checkpointing recomputes the same one.
    Whether it drops follows the clock, never `training`, which is shared by all trials on the base.
    """

    def __init__(self, p: float, seed: int, module_name: str, clock: DropoutClock) -> None:
        super().__init__()
        self.p = p
        self._seed = seed
        self._module_name = module_name
        self._clock = clock

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` of any shape, scaled by 1 / (1 - p) where kept."""
        position = self._clock.position
        if position is None or self.p == 0:
            return x
        generator = torch.Generator(x.device)
        generator.manual_seed(stream_key("dropout", self._seed, position, self._module_name))
        return x * _scaled_mask(x, 1 - self.p, generator)


def _scaled_mask(x: torch.Tensor, keep: float, generator: torch.Generator) -> torch.Tensor:
    """Shaped like `x`: 1 / keep where kept, else 0. Draws cost most, so one serves four elements."""
    count = x.numel()
    words = torch.empty((count + 3) // 4, dtype=torch.int64, device=x.device)
    bits = words.random_(-(2**63), None, generator=generator).view(torch.int16)[:count].view(x.shape)
    return (bits < round(keep * 2**16) - 2**15).to(x.dtype).mul_(1 / keep)
