"""Random bits that are a pure function of what they are for, equal on every device and for every way of batching.

A counter-based hash in int64 tensor operations: what an element gets depends on its key alone, never on how many
elements are drawn with it, in which order or where.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch

from trainer.common.random_keys import stream_key
from trainer.data.batches import Batch

_LANES = 4


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


@dataclass(frozen=True)
class TokenKeys:
    """What the draws of a micro-batch are keyed by.

    `words` [rows, length] int64 name each token by (seed, position of its example in the trial's data order, offset in
    the example); `example_of` [rows, length] is the example of each token within the micro-batch, -1 at padding.
    """

    words: torch.Tensor
    example_of: torch.Tensor

    def example_tokens(self) -> torch.Tensor:
        """Tokens of the example that each token belongs to [rows, length] int64 (at padding: of the padding)."""
        examples = self.example_of + 1
        return torch.bincount(examples.flatten())[examples]


def token_keys(seed: int, first_position: int, batch: Batch) -> TokenKeys:
    """Keys of the tokens of `batch`, whose examples are at `first_position`, `first_position + 1`, ... of the data."""
    start = stream_key("noise", seed)
    words = _finalize(_finalize((batch.example_of + first_position) * _GOLDEN + start) + batch.offset_of * _GOLDEN)
    return TokenKeys(words, batch.example_of)


def keyed_bits(words: torch.Tensor, stream: int, columns: int) -> torch.Tensor:
    """Uniform int16 bits [..., columns] for keys `words` [...] int64 in the stream of that key (`stream_key`)."""
    counters = _column_words(columns, words.device)
    mixed = torch.bitwise_xor((words ^ stream)[..., None], counters)
    # Arithmetic shifts lose the sign, which the multiplication after them makes up for: logical ones cost a pass more.
    shifted = mixed >> 32
    mixed ^= shifted
    mixed *= _FIRST
    mixed ^= torch.bitwise_right_shift(mixed, 32, out=shifted)
    mixed *= _SECOND
    bits: torch.Tensor = mixed.view(torch.int16)[..., :columns]
    return bits


@lru_cache(maxsize=64)
def _column_words(columns: int, device: torch.device) -> torch.Tensor:
    """[columns / 4, rounded up]: one word serves four columns."""
    return _finalize(torch.arange(1, -(-columns // _LANES) + 1, device=device) * _GOLDEN)


def _finalize(words: torch.Tensor) -> torch.Tensor:
    """The finalizer of splitmix64: every output bit depends on every input bit."""
    words = (words ^ _shifted(words, 30)) * _FIRST
    words = (words ^ _shifted(words, 27)) * _SECOND
    return words ^ _shifted(words, 31)


def _shifted(words: torch.Tensor, bits: int) -> torch.Tensor:
    low: int = (1 << 64 - bits) - 1
    return (words >> bits) & low
