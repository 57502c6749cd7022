"""How an effective batch is cut into the micro-batches of each rank."""

from dataclasses import dataclass

import torch

from trainer.data.batches import Batch
from trainer.data.dataset import DataOrder, Examples
from trainer.distributed.ranks import Ranks


@dataclass(frozen=True)
class Piece:
    """One micro-batch, whose examples are at `position`, `position + 1`, ... of the data.

    What stands in where a rank has none left, so that all ranks compute equally often, does not count.
    """

    position: int
    batch: Batch
    counts: bool


def pieces_of(
    examples: Examples, order: DataOrder, start: int, stop: int, micro_batch: int, ranks: Ranks, device: torch.device
) -> list[Piece]:
    """This rank's micro-batches of positions start..stop-1, as many as the rank with most of them has."""
    first, last = ranks.share(start, stop)
    pieces = [
        Piece(position, examples.batch(order.indices(position, min(position + micro_batch, last)), device), counts=True)
        for position in range(first, last, micro_batch)
    ]
    for _ in range(-(-ranks.largest_share(stop - start) // micro_batch) - len(pieces)):
        pieces.append(Piece(start, examples.batch(order.indices(start, start + 1), device), counts=False))
    return pieces


def work_of(pieces: list[Piece]) -> list[float]:
    """Tokens without padding, learned tokens and squared lengths of what counts."""
    batches = [piece.batch for piece in pieces if piece.counts]
    return [
        sum(batch.tokens for batch in batches),
        sum(batch.response_tokens for batch in batches),
        sum(batch.squared_tokens for batch in batches),
    ]
