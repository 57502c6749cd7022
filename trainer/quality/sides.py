"""The rows that a trial trains on and those it is judged by, as positions: first all training rows, then all others."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trainer.data.split import split_rows
from trainer.quality.ngrams import Hashes, Integers, Texts
from trainer.quality.table import RowTable
from trainer.spec import DataSpec


@dataclass(frozen=True)
class Side:
    """Some rows of a table, in file order."""

    table: RowTable
    rows: Integers

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Sides:
    """Training rows, and evaluation rows or test rows, as `judged` says.

    Test rows are also compared with evaluation rows, which then stand in the place of training rows, as `known` says.
    """

    train: Side
    evaluation: Side
    judged: Literal["evaluation", "test"] = "evaluation"
    known: Literal["training", "evaluation"] = "training"

    def __len__(self) -> int:
        return len(self.train) + len(self.evaluation)

    @property
    def one_known(self) -> str:
        """One of `known`, in words."""
        return "a training row" if self.known == "training" else "an evaluation row"

    @property
    def is_eval(self) -> NDArray[np.bool_]:
        """[positions] True for evaluation rows."""
        return np.arange(len(self)) >= len(self.train)

    @property
    def row_hashes(self) -> Hashes:
        """Hashes of whole rows [positions]."""
        return np.concatenate([side.table.row_hashes[side.rows] for side in (self.train, self.evaluation)])

    @property
    def prompt_hashes(self) -> Hashes:
        """Hashes of prompts [positions]."""
        return np.concatenate([side.table.prompt_hashes[side.rows] for side in (self.train, self.evaluation)])

    @property
    def has_prompt(self) -> NDArray[np.bool_]:
        """[positions] False where there is nothing but a response."""
        return np.concatenate([side.table.has_prompt[side.rows] for side in (self.train, self.evaluation)])

    def label(self, position: int) -> str:
        """`FILE:LINE` of a position."""
        side, first = (self.train, 0) if position < len(self.train) else (self.evaluation, len(self.train))
        return side.table.label(int(side.rows[position - first]))

    def texts(self, positions: Integers) -> Texts:
        """What is compared of `positions`, which ascend."""
        border = np.searchsorted(positions, len(self.train))
        first = self.train.table.texts(self.train.rows[positions[:border]])
        second = self.evaluation.table.texts(self.evaluation.rows[positions[border:] - len(self.train)])
        return Texts(
            np.concatenate([first.data, second.data]), np.r_[first.starts, second.starts[1:] + first.starts[-1]]
        )

    def text_bytes(self, positions: Integers) -> Integers:
        """Length of what is compared of `positions`, which ascend."""
        border = np.searchsorted(positions, len(self.train))
        first = self.train.table.text_bytes(self.train.rows[positions[:border]])
        second = self.evaluation.table.text_bytes(self.evaluation.rows[positions[border:] - len(self.train)])
        return np.concatenate([first, second])

    def batches(self, positions: Integers, batch_bytes: int) -> Iterator[Integers]:
        """`positions`, which ascend, in groups of at most about `batch_bytes` of text."""
        group = np.cumsum(self.text_bytes(positions)) // batch_bytes
        yield from np.split(positions, np.flatnonzero(np.diff(group)) + 1) if len(positions) else ()


def sides_of(data: DataSpec, train: RowTable, evaluation: RowTable | None) -> Sides:
    """The split that trials see."""
    chosen = split_rows(data, len(train), None if evaluation is None else len(evaluation))
    return Sides(Side(train, np.sort(chosen[0])), Side(train if evaluation is None else evaluation, np.sort(chosen[1])))


def all_sides_of(data: DataSpec, train: RowTable, evaluation: RowTable | None) -> Sides:
    """The split of a confirmation, which is judged by every evaluation row that there is."""
    return sides_of(data.model_copy(update={"max_eval_examples": None}), train, evaluation)


def sides_with_test(sides: Sides, test: RowTable) -> tuple[Sides, Sides]:
    """(the training rows of `sides`, and every test row; its evaluation rows, and every test row)."""
    tested = Side(test, np.arange(len(test), dtype=np.int64))
    return Sides(sides.train, tested, "test"), Sides(sides.evaluation, tested, "test", "evaluation")
