"""NEFTune: uniform noise on the embeddings while a trial trains, keyed per example."""

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from trainer.common.random_keys import stream_key
from trainer.model.keyed_dropout import NoiseClock
from trainer.model.keyed_random import TokenKeys, keyed_bits

_STREAM = stream_key("neftune")


class NeftuneNoise:
    """Adds noise of `alpha` to what an embedding module returns, while attached and while the clock runs."""

    def __init__(self, alpha: float, embedding: nn.Module, clock: NoiseClock) -> None:
        self._alpha = alpha
        self._embedding = embedding
        self._clock = clock
        self._handle: RemovableHandle | None = None

    def attach(self) -> None:
        """Add noise from now on."""
        self._handle = self._embedding.register_forward_hook(self._perturb)

    def detach(self) -> None:
        """Leave the embeddings alone from now on."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _perturb(self, module: nn.Module, inputs: object, embedded: torch.Tensor) -> torch.Tensor | None:
        tokens = self._clock.tokens
        return None if tokens is None else embedded + neftune_noise(tokens, embedded, self._alpha)


def neftune_noise(tokens: TokenKeys, embedded: torch.Tensor, alpha: float) -> torch.Tensor:
    """Uniform in [-1, 1] * alpha / sqrt(tokens of the example * features), like `embedded` [rows, length, features].

    Where flash attention takes packed rows as one, `embedded` is [1, rows x length, features].
    """
    features = embedded.shape[-1]
    bits = keyed_bits(tokens.words, _STREAM, features)
    bounds = alpha / (tokens.example_tokens().double() * features).sqrt()
    return ((bits.float() + 0.5) * (bounds / 2**15).float()[..., None]).to(embedded.dtype).view_as(embedded)
