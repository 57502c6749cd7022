"""`python short_of_memory.py MOST RANK ...`: the real worker, whose rank RANK has no memory for more than MOST examples
at once. All other arguments are the worker's own.
"""

import os
import sys

import torch

from trainer.data.batches import Batch
from trainer.distributed import worker_group
from trainer.training.engines.zero.base import PartitionedBase
from trainer.worker import __main__ as worker


def main(most: int, rank: str, arguments: list[str]) -> None:
    """Serve slices until stdin ends."""
    whole = PartitionedBase.nll

    def nll(base: PartitionedBase, batch: Batch) -> torch.Tensor:
        if torch.is_grad_enabled() and os.environ["RANK"] == rank and batch.examples > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return whole(base, batch)

    PartitionedBase.nll = nll  # type: ignore[assignment, method-assign]
    worker_group.COMMAND = (sys.executable, __file__, str(most), rank)
    sys.argv[1:] = arguments
    worker.main(arguments)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
