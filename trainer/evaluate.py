"""Evaluation loss: the mean over response tokens of a fixed split, whatever the batch size."""

import math
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.data import Examples
from trainer.model import BaseModel
from trainer.tokens import Batch


@dataclass(frozen=True)
class Evaluation:
    """`example_losses` [examples] float32 are means over each example's `example_tokens` [examples] int32."""

    loss: float
    tokens: int
    example_losses: NDArray[np.float32]
    example_tokens: NDArray[np.int32]


def perplexity(loss: float) -> float:
    """exp(loss), infinite where that overflows."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def evaluate(base: BaseModel, examples: Examples, batch_rows: int) -> Generator[Batch, None, Evaluation]:
    """Evaluate the active adapter; yields after every batch, returns the result.

    Rows are batched by length. Sums are kept in float64 in the order of the examples, so the batch size shows in
    the rounding of the forward pass only (below 1e-5).
    """
    sums = np.zeros(len(examples), dtype=np.float64)
    tokens = np.zeros(len(examples), dtype=np.int64)
    by_length = np.argsort(-examples.lengths, kind="stable")
    for start in range(0, len(by_length), batch_rows):
        chosen = by_length[start : start + batch_rows]
        batch = examples.batch(chosen, base.device)
        with torch.no_grad():
            nll = base.nll(batch).double().cpu().numpy()
        sums[chosen] = np.bincount(batch.row_of, weights=nll, minlength=len(chosen))
        tokens[chosen] = np.bincount(batch.row_of, minlength=len(chosen))
        yield batch
    return Evaluation(
        loss=math.fsum(sums.tolist()) / int(tokens.sum()),
        tokens=int(tokens.sum()),
        example_losses=(sums / tokens).astype(np.float32),
        example_tokens=tokens.astype(np.int32),
    )
