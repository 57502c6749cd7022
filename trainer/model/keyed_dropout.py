"""Dropout whose masks are keyed per example, so that neither neighbours nor batching nor a recompute change them."""

from dataclasses import dataclass

import torch
from torch import nn

from trainer.common.errors import UserError
from trainer.common.random_keys import stream_key
from trainer.model.keyed_random import TokenKeys, keyed_bits


@dataclass
class NoiseClock:
    """Where a trial is: the keys of the micro-batch in progress, None while nothing is dropped or perturbed."""

    tokens: TokenKeys | None = None


class KeyedDropout(nn.Module):
    """Dropout with probability `p` of adapter `module_name`, keyed by (seed, example, module, offset, column).

    The mask is a function of its key, so activation checkpointing recomputes the same one. Whether it drops follows
    the clock, never `training`, which is shared by all trials on the base.
    """

    def __init__(self, p: float, module_name: str, clock: NoiseClock) -> None:
        super().__init__()
        self.p = p
        self._module_name = module_name
        self._stream = stream_key("dropout", module_name)
        self._clock = clock

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` [rows, length, features] or [rows x length, features], scaled by 1 / (1 - p) where kept.

        Raises:
            UserError: `x` does not have a row for every token.
        """
        tokens = self._clock.tokens
        if tokens is None or self.p == 0:
            return x
        if x.shape[:-1].numel() != tokens.words.numel():
            raise UserError(f"module {self._module_name} does not see every token once; set lora_dropout to 0")
        keep = 1 - self.p
        threshold = round(keep * 2**16) - 2**15
        if threshold == 2**15:
            # Less than half of the smallest share that 16 bits can tell; int16 does not hold this number.
            return x
        bits = keyed_bits(tokens.words.view(x.shape[:-1]), self._stream, x.shape[-1])
        return x * (bits < threshold).to(x.dtype).mul_(1 / keep)
