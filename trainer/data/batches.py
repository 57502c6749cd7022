"""Batches of tokens: padded or packed rows, and which tokens in them are learned."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.data.row_encoding import Encoded


@dataclass(frozen=True)
class Batch:
    """Examples in rows that are padded on the right to the longest of them.

    `input_ids` [rows, length] int64; `positions` [n] are the flat indices into rows x length whose next token is
    learned, `targets` [n] those tokens, `row_of` [n] (numpy) their example. `example_of` [rows, length] int64 is the
    example within the batch that each token belongs to (-1 at padding), `offset_of` [rows, length] int64 the token's
    offset in it (0 at padding). `packed` says that a row may hold several examples, which must not see each other.
    `tokens` counts what is not padding; `squared_tokens` sums the squares of the examples' lengths (attention FLOPs).
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor
    row_of: NDArray[np.int64]
    example_of: torch.Tensor
    offset_of: torch.Tensor
    examples: int
    tokens: int
    squared_tokens: int
    packed: bool = False

    @property
    def response_tokens(self) -> int:
        """Number of learned tokens."""
        return len(self.row_of)


def collate(examples: Sequence[Encoded], device: torch.device, pack_tokens: int | None = None) -> Batch:
    """A batch on `device` of examples that each have a learned token.

    With `pack_tokens` examples share rows of up to so many tokens (first fit, longest first), which depends on their
    lengths alone; where no two fit together, the batch is the same as without.
    """
    lengths = np.array([len(example.ids) for example in examples], dtype=np.int64)
    row_of, start_of = _places(lengths, pack_tokens)
    packed = bool(start_of.any())
    width = int((start_of + lengths).max())
    shape = (int(row_of.max()) + 1, width)
    ids, example_of, offset_of = np.zeros(shape, np.int64), np.full(shape, -1, np.int64), np.zeros(shape, np.int64)
    learned, owners = [], []
    for number, (example, row, start) in enumerate(zip(examples, row_of, start_of, strict=True)):
        stop = start + len(example.ids)
        ids[row, start:stop] = example.ids
        example_of[row, start:stop] = number
        offset_of[row, start:stop] = np.arange(len(example.ids))
        offsets = _inside(example.spans)
        learned.append(row * width + start + offsets)
        owners.append(np.full(len(offsets), number, dtype=np.int64))
    places = np.concatenate(learned)
    return Batch(
        input_ids=torch.from_numpy(ids).to(device),
        positions=torch.from_numpy(places - 1).to(device),
        targets=torch.from_numpy(ids.ravel()[places]).to(device),
        row_of=np.concatenate(owners),
        example_of=torch.from_numpy(example_of).to(device),
        offset_of=torch.from_numpy(offset_of).to(device),
        examples=len(examples),
        tokens=int(lengths.sum()),
        squared_tokens=int((lengths**2).sum()),
        packed=packed,
    )


def _inside(spans: NDArray[np.int32]) -> NDArray[np.int64]:
    """Every offset that lies in one of the spans."""
    if len(spans) == 2:
        return np.arange(spans[0], spans[1], dtype=np.int64)
    bounds = spans.reshape(-1, 2)
    return np.concatenate([np.arange(start, stop, dtype=np.int64) for start, stop in bounds])


def _places(lengths: NDArray[np.int64], pack_tokens: int | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(row, first column) of each example."""
    rows, starts = np.arange(len(lengths), dtype=np.int64), np.zeros(len(lengths), dtype=np.int64)
    if pack_tokens is None:
        return rows, starts
    used: list[int] = []
    for number in np.argsort(-lengths, kind="stable"):
        length = int(lengths[number])
        row = next((row for row, tokens in enumerate(used) if tokens + length <= pack_tokens), len(used))
        if row == len(used):
            used.append(0)
        rows[number], starts[number] = row, used[row]
        used[row] += length
    # Alone in their rows, examples stay in their order: then the batch is the one without packing.
    return (rows, starts) if starts.any() else (np.arange(len(lengths), dtype=np.int64), starts)
