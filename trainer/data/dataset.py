"""What a trial learns from and is judged by: split and order of tokenized rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from trainer.common.errors import DataError
from trainer.common.random_keys import stream_key
from trainer.data.batches import Batch, collate
from trainer.data.shards import TokenTable
from trainer.data.split import permutation, split_rows
from trainer.data.token_cache import TokenCache
from trainer.spec import DataFingerprints, DataSpec, Notice

Judged = Literal["evaluation", "test"]


@dataclass(frozen=True)
class Examples:
    """A selection of learnable rows of tokenized data, in a fixed order.

    With `pack_tokens` the examples of a batch share rows of up to so many tokens.
    """

    source: TokenTable
    rows: NDArray[np.int64]
    pack_tokens: int | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example [examples]."""
        return self.source.lengths(self.rows)

    def batch(self, examples: Sequence[int] | NDArray[np.int64], device: torch.device) -> Batch:
        """The examples with these indices (0-based, into this selection) as a batch."""
        return collate([self.source.row(self.rows[example]) for example in examples], device, self.pack_tokens)


@dataclass(frozen=True)
class TrialData:
    """Training and evaluation examples of a trial.

    `train_rows` is the number of training rows before those were dropped whose response is cut away by
    `max_length`; epochs are counted in it, so that the service, which does not tokenize, counts the same.
    """

    train: Examples
    evaluation: Examples
    fingerprints: DataFingerprints
    train_rows: int
    dropped_train: int
    dropped_eval: int
    test: Examples | None = None

    def left_out(self) -> Notice | None:
        """Tells of rows that nothing is learned from or judged by, since their responses were cut away."""
        if not self.dropped_train and not self.dropped_eval:
            return None
        eval_rows = len(self.evaluation) + self.dropped_eval
        message = (
            f"{self.dropped_train} of {self.train_rows} training rows and {self.dropped_eval} of {eval_rows} "
            "evaluation rows are left out: nothing of their response is left within max_length, or what the model takes"
        )
        values = {"train_rows": float(self.dropped_train), "eval_rows": float(self.dropped_eval)}
        return Notice(kind="rows_left_out", values=values, message=message)

    def judged(self, part: Judged) -> Examples:
        """The examples of a part; `test` must be there."""
        if part == "evaluation":
            return self.evaluation
        assert self.test is not None
        return self.test


def require_same_data(spec: DataSpec, known: DataFingerprints, found: DataFingerprints) -> None:
    """Raises DataError if the data of `spec` are no longer those that are known."""
    sentence = known.changed(found, spec)
    if sentence is not None:
        raise DataError(sentence)


class DataCache:
    """The data sets that a worker has open; they are tokenized on disk, once for all workers (see `TokenCache`)."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, cache: TokenCache) -> None:
        self._tokenizer = tokenizer
        self._cache = cache
        self._tables: dict[str, TokenTable] = {}

    def load(self, spec: DataSpec, max_length: int) -> TrialData:
        """Split, limit and select.

        Raises:
            RowError: a file is unusable.
            DataError: nothing is left to train on or to evaluate.
            UserError: the model's tokenizer cannot encode data of this format.
            TokenCacheError: the folder of tokenized data cannot be used.
        """
        fingerprints = self._fingerprints(spec)
        source = self._table(spec.train, spec, max_length)
        held_out = source if spec.eval is None else self._table(spec.eval, spec, max_length)
        train_rows, eval_rows = split_rows(spec, len(source), None if spec.eval is None else len(held_out))
        pack_tokens = max_length if spec.packing else None
        train = _learnable(source, train_rows, pack_tokens)
        evaluation = _learnable(held_out, eval_rows, pack_tokens)
        test = None if spec.test is None else self._whole(spec.test, spec, max_length, pack_tokens)
        for name, path, examples in (
            ("train on", spec.train, train),
            ("evaluate", spec.eval or spec.train, evaluation),
            ("test", spec.test, test),
        ):
            if examples is not None and not len(examples):
                raise DataError(f"{path}: nothing is left to {name} at max_length {max_length}")
        dropped = len(train_rows) - len(train), len(eval_rows) - len(evaluation)
        require_same_data(spec, fingerprints, self._fingerprints(spec))
        return TrialData(train, evaluation, fingerprints, len(train_rows), *dropped, test)

    def _fingerprints(self, spec: DataSpec) -> DataFingerprints:
        digest = self._cache.data_digest
        return DataFingerprints(
            train=digest(spec.train), eval=spec.eval and digest(spec.eval), test=spec.test and digest(spec.test)
        )

    def _whole(self, path: str, spec: DataSpec, max_length: int, pack_tokens: int | None) -> Examples:
        table = self._table(path, spec, max_length)
        return _learnable(table, np.arange(len(table), dtype=np.int64), pack_tokens)

    def _table(self, path: str, spec: DataSpec, max_length: int) -> TokenTable:
        fingerprint = self._cache.fingerprint(path, spec, max_length, self._tokenizer)
        if fingerprint not in self._tables:
            table = self._cache.table(path, spec, max_length, self._tokenizer)
            if self._cache.fingerprint(path, spec, max_length, self._tokenizer) != fingerprint:
                raise DataError(f"{path} changed while it was read; start again once it is complete")
            self._tables[fingerprint] = table
        return self._tables[fingerprint]


@dataclass(frozen=True)
class DataOrder:
    """The example at each position of a trial's run: a pure function of (seed, position)."""

    seed: int
    examples: int

    def indices(self, start: int, stop: int) -> NDArray[np.int64]:
        """Examples at positions start..stop-1; each epoch is its own permutation."""
        epochs = range(start // self.examples, (stop - 1) // self.examples + 1)
        orders = [permutation(stream_key("order", self.seed, epoch), self.examples) for epoch in epochs]
        first = epochs.start * self.examples
        return np.concatenate(orders)[start - first : stop - first]


def _learnable(source: TokenTable, rows: NDArray[np.int64], pack_tokens: int | None) -> Examples:
    kept = source.learnable[rows]
    return Examples(source, rows if kept.all() else rows[kept], pack_tokens)
