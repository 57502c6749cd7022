"""Evaluation loss: the mean over response tokens of a fixed split, whatever the batch size."""

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.data.batches import Batch
from trainer.data.dataset import Examples
from trainer.distributed.ranks import Ranks
from trainer.model.base_model import BaseModel

MAX_FOLDS = 32


@dataclass(frozen=True)
class Evaluation:
    """`example_losses` [examples] float32 are means over each example's `example_tokens` [examples] int32."""

    loss: float
    tokens: int
    example_losses: NDArray[np.float32]
    example_tokens: NDArray[np.int32]

    def fold_losses(self) -> tuple[float, ...]:
        """Means over the tokens of up to 32 folds of at least two examples: example i belongs to fold i modulo folds.

        Two trials of a study are compared fold by fold: the spread of their differences says how sure the difference
        of their losses is, whatever hard and easy examples have in common.
        """
        folds = min(MAX_FOLDS, len(self.example_losses) // 2)
        if folds < 2:
            return ()
        fold_of = np.arange(len(self.example_losses)) % folds
        sums = np.bincount(fold_of, self.example_losses.astype(np.float64) * self.example_tokens, folds)
        losses: list[float] = (sums / np.bincount(fold_of, self.example_tokens, folds)).tolist()
        return tuple(losses)

    def tensors(self) -> dict[str, torch.Tensor]:
        """`loss` and `tokens` of every example, as a snapshot keeps them."""
        return {"loss": torch.from_numpy(self.example_losses), "tokens": torch.from_numpy(self.example_tokens)}


class BatchWork(NamedTuple):
    """What the batches of all ranks took: tokens without padding, learned tokens, squared lengths of the examples."""

    tokens: float
    response_tokens: float
    squared_tokens: float

    @classmethod
    def of(cls, batch: Batch) -> "BatchWork":
        """The work of one batch."""
        return cls(batch.tokens, batch.response_tokens, batch.squared_tokens)

    @classmethod
    def nothing(cls, batch: Batch) -> "BatchWork":
        """The work of a batch that does not count."""
        return cls(0, 0, 0)


def perplexity(loss: float) -> float:
    """exp(loss), infinite where that overflows."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def evaluate(
    base: BaseModel, examples: Examples, batch_rows: int, ranks: Ranks = Ranks()
) -> Generator[BatchWork, None, Evaluation]:
    """Evaluate the active adapter; yields after every batch of each rank, returns the result, the same on all ranks.

    Rows are batched by length, and batches dealt out to the ranks. Sums are kept in float64 in the order of the
    examples, so batch size and packing show in the rounding of the forward pass only (below 1e-6 of a float32 loss),
    and the number of ranks not at all.
    """
    sums = np.zeros(len(examples), dtype=np.float64)
    tokens = np.zeros(len(examples), dtype=np.int64)
    by_length = np.argsort(-examples.lengths, kind="stable")
    pieces = [by_length[start : start + batch_rows] for start in range(0, len(by_length), batch_rows)]
    for first in range(0, len(pieces), ranks.size):
        number = first + ranks.rank
        # A rank without a batch of its own goes along with the shortest example, which it does not count.
        counts = number < len(pieces)
        chosen = pieces[number] if counts else by_length[-1:]
        batch, work = ranks.attempt(
            lambda chosen=chosen: examples.batch(chosen, base.device),  # type: ignore[misc]
            BatchWork.of if counts else BatchWork.nothing,
        )
        with torch.no_grad():
            nll = base.nll(batch).double().cpu().numpy()
        if counts:
            sums[chosen] = np.bincount(batch.row_of, weights=nll, minlength=len(chosen))
            tokens[chosen] = np.bincount(batch.row_of, minlength=len(chosen))
        yield BatchWork(*work)
    sums = ranks.add(torch.from_numpy(sums)).numpy()
    tokens = ranks.add(torch.from_numpy(tokens)).numpy()
    return Evaluation(
        loss=math.fsum(sums.tolist()) / int(tokens.sum()),
        tokens=int(tokens.sum()),
        example_losses=(sums / tokens).astype(np.float32),
        example_tokens=tokens.astype(np.int32),
    )
