"""Tokenized rows: ids, where the response starts, and padded batches whose labels are response tokens only."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from trainer.errors import UserError
from trainer.rows import Row, read_rows

_ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right to the longest of them.

    `input_ids` [rows, length] int64; `positions` [n] are the flat indices into rows x length whose next token is
    learned, `targets` [n] those tokens, `row_of` [n] (numpy) their row. `tokens` counts what is not padding;
    `squared_tokens` sums the squares of the rows' lengths (attention FLOPs).
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor
    row_of: NDArray[np.int64]
    tokens: int
    squared_tokens: int

    @property
    def response_tokens(self) -> int:
        """Number of learned tokens."""
        return len(self.row_of)


@dataclass(frozen=True)
class TokenizedFile:
    """All rows of a file, one after another in `ids` [tokens] int32.

    Row i is `ids[starts[i]:starts[i + 1]]`, cut at `max_length`; its prompt is the first `prompt_lengths[i]`
    tokens (all of them if the response was cut away).
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    prompt_lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.prompt_lengths)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row [rows]."""
        return np.diff(self.starts)

    def learnable(self) -> NDArray[np.bool_]:
        """[rows] True where at least one response token is left after the cut."""
        return self.prompt_lengths < self.lengths

    def batch(self, rows: Sequence[int] | NDArray[np.int64], device: torch.device) -> Batch:
        """Pad `rows` (indices into the file, each learnable) into a batch on `device`."""
        pieces = [self.ids[self.starts[row] : self.starts[row + 1]] for row in rows]
        lengths = np.array([len(piece) for piece in pieces], dtype=np.int64)
        width = int(lengths.max())
        padded = np.zeros((len(pieces), width), dtype=np.int64)
        for line, piece in zip(padded, pieces, strict=True):
            line[: len(piece)] = piece
        prompts = self.prompt_lengths[np.asarray(rows, dtype=np.int64)]
        column = np.arange(width)
        learned = (column >= prompts[:, None]) & (column < lengths[:, None])
        row_of, column_of = np.nonzero(learned)
        return Batch(
            input_ids=torch.from_numpy(padded).to(device),
            positions=torch.from_numpy(row_of * width + column_of - 1).to(device),
            targets=torch.from_numpy(padded[learned]).to(device),
            row_of=row_of,
            tokens=int(lengths.sum()),
            squared_tokens=int((lengths**2).sum()),
        )


def tokenize_file(path: str | Path, tokenizer: PreTrainedTokenizerBase, max_length: int) -> TokenizedFile:
    """Tokenize every row as prompt + response + end-of-sequence, cut at `max_length` tokens.

    Raises:
        RowError: see `read_rows`.
        UserError: the tokenizer has no end-of-sequence token, so a trained model could never stop.
    """
    end = tokenizer.eos_token_id
    if not isinstance(end, int):
        raise UserError("the model's tokenizer has no end-of-sequence token, which training needs")
    ids: list[NDArray[np.int32]] = []
    prompt_lengths: list[int] = []
    for prompt, response in _encoded(read_rows(path), tokenizer, end):
        row = np.array([*prompt, *response, end][:max_length], dtype=np.int32)
        ids.append(row)
        prompt_lengths.append(min(len(prompt), len(row)))
    starts = np.zeros(len(ids) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in ids], out=starts[1:])
    return TokenizedFile(np.concatenate(ids), starts, np.array(prompt_lengths, dtype=np.int64))


def _encoded(
    rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase, end: int
) -> Iterator[tuple[list[int], list[int]]]:
    """(prompt ids, response ids) of each row, such that the prompt alone tokenizes to exactly the prompt ids.

    The response's ids are what follows the prompt in the whole text, as a model sees it when it continues a prompt.
    Where a token would reach over the border, the response is tokenized by itself.
    """
    rest = iter(rows)
    while chunk := list(islice(rest, _ROWS_AT_ONCE)):
        prompts = [row.prompt() for row in chunk]
        wholes = [prompt + row.output for prompt, row in zip(prompts, chunk, strict=True)]
        for row, prompt, whole in zip(chunk, _ids(prompts, tokenizer, end), _ids(wholes, tokenizer, end), strict=True):
            if whole[: len(prompt)] == prompt:
                yield prompt, whole[len(prompt) :]
            else:
                yield prompt, tokenizer(row.output, add_special_tokens=False)["input_ids"]


def _ids(texts: list[str], tokenizer: PreTrainedTokenizerBase, end: int) -> list[list[int]]:
    encoded: Any = tokenizer(texts, return_attention_mask=False, verbose=False)["input_ids"]
    return [ids[:-1] if ids and ids[-1] == end else ids for ids in encoded]
