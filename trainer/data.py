"""What a trial learns from and is judged by: split, order and the cache of tokenized files."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from trainer.errors import DataError
from trainer.keys import stream_key
from trainer.rows import TEMPLATE, RowError, example_counts, split_sizes
from trainer.spec import DataSpec
from trainer.tokens import Batch, TokenizedFile, tokenize_file


@dataclass(frozen=True)
class Examples:
    """A selection of learnable rows of a tokenized file, in a fixed order."""

    source: TokenizedFile
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example [examples]."""
        return self.source.lengths[self.rows]

    def batch(self, examples: NDArray[np.int64], device: torch.device) -> Batch:
        """Pad the examples with these indices (0-based, into this selection) into a batch."""
        return self.source.batch(self.rows[examples], device)


@dataclass(frozen=True)
class TrialData:
    """Training and evaluation examples of a trial.

    `train_rows` is the number of training rows before those were dropped whose response is cut away by
    `max_length`; epochs are counted in it, so that the service, which does not tokenize, counts the same.
    """

    train: Examples
    evaluation: Examples
    train_rows: int
    dropped_train: int
    dropped_eval: int


class DataCache:
    """Tokenizes each (content, max_length) once and keeps it for the worker's life."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._files: dict[tuple[str, int, str], TokenizedFile] = {}

    def load(self, spec: DataSpec, max_length: int) -> TrialData:
        """Split, limit and select.

        Raises:
            RowError: a file is unusable.
            DataError: nothing is left to train on or to evaluate.
        """
        source = self._tokenized(spec.train, max_length)
        order = _permutation(stream_key("split", spec.split_seed, len(source)), len(source))
        if spec.eval is None:
            train_rows, eval_rows = example_counts(spec, len(source))
            held_out, held_out_order = source, order[split_sizes(len(source), spec.eval_fraction)[0] :]
        else:
            held_out = self._tokenized(spec.eval, max_length)
            train_rows, eval_rows = example_counts(spec, len(source), len(held_out))
            held_out_order = _permutation(stream_key("split", spec.split_seed, len(held_out)), len(held_out))
        train, dropped_train = _learnable(source, order[:train_rows])
        evaluation, dropped_eval = _learnable(held_out, held_out_order[:eval_rows])
        for name, examples in (("train on", train), ("evaluate", evaluation)):
            if not len(examples):
                raise DataError(f"{spec.train}: nothing is left to {name} at max_length {max_length}")
        return TrialData(train, evaluation, train_rows, dropped_train, dropped_eval)

    def _tokenized(self, path: str, max_length: int) -> TokenizedFile:
        key = (_file_digest(path), max_length, TEMPLATE)
        if key not in self._files:
            self._files[key] = tokenize_file(path, self._tokenizer, max_length)
        return self._files[key]


@dataclass(frozen=True)
class DataOrder:
    """The example at each position of a trial's run: a pure function of (seed, position)."""

    seed: int
    examples: int

    def indices(self, start: int, stop: int) -> NDArray[np.int64]:
        """Examples at positions start..stop-1; each epoch is its own permutation."""
        epochs = range(start // self.examples, (stop - 1) // self.examples + 1)
        orders = [_permutation(stream_key("order", self.seed, epoch), self.examples) for epoch in epochs]
        first = epochs.start * self.examples
        return np.concatenate(orders)[start - first : stop - first]


@lru_cache(maxsize=8)
def _permutation(key: int, size: int) -> NDArray[np.int64]:
    """A permutation of range(size). Sorting by random keys does not depend on a library's shuffle."""
    keys = np.random.PCG64(key).random_raw(size)
    order = np.argsort(keys, kind="stable")
    order.setflags(write=False)
    return order


def _learnable(source: TokenizedFile, rows: NDArray[np.int64]) -> tuple[Examples, int]:
    kept = rows[source.learnable()[rows]]
    return Examples(source, kept), len(rows) - len(kept)


def _file_digest(path: str) -> str:
    try:
        stat = Path(path).stat()
        return _digest_of(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)
    except OSError as error:
        raise RowError(path, 0, f"cannot be read: {error.strerror or error}") from error


@lru_cache(maxsize=256)
def _digest_of(path: str, size_bytes: int, mtime_ns: int, inode: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
