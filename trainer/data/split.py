"""Which rows a trial trains on and which it is evaluated with. No torch here: the data's checks see the same split."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from trainer.common.random_keys import stream_key
from trainer.data.rows import example_counts, split_sizes
from trainer.spec import DataSpec


def split_rows(
    data: DataSpec, train_file_rows: int, eval_file_rows: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows (0-based, in their files) for training and for evaluation, in the order in which limits count them.

    `eval_file_rows` is the number of rows of `data.eval`; None where evaluation rows are held out of the training
    file.
    """
    order = permutation(stream_key("split", data.split_seed, train_file_rows), train_file_rows)
    train_rows, eval_rows = example_counts(data, train_file_rows, eval_file_rows)
    if eval_file_rows is None:
        held_out = order[split_sizes(train_file_rows, data.eval_fraction)[0] :]
    else:
        held_out = permutation(stream_key("split", data.split_seed, eval_file_rows), eval_file_rows)
    return order[:train_rows], held_out[:eval_rows]


@lru_cache(maxsize=4)
def permutation(key: int, size: int) -> NDArray[np.int64]:
    """A permutation of range(size). Sorting by random keys does not depend on a library's shuffle."""
    keys = np.random.PCG64(key).random_raw(size)
    order = np.argsort(keys, kind="stable")
    order.setflags(write=False)
    return order
