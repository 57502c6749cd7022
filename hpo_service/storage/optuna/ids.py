"""Where study and trial ids come from: Optuna's own sequences, taken in blocks."""

from collections import deque
from typing import Protocol

from sqlalchemy import Engine, Sequence, func, select

from hpo_service.storage.optuna import tables


class IdSource(Protocol):
    """Gives every id once."""

    def study_id(self) -> int:
        """An id that no study has or had."""

    def trial_id(self) -> int:
        """An id that no trial has or had, larger than all those given before."""


class SequenceIds:
    """Ids from Optuna's sequences, over a connection of their own; for use in one thread.

    Sequences know no rollback: an id is given once whatever becomes of the caller's transaction, and gaps are normal.
    """

    def __init__(self, engine: Engine, *, block: int = 16) -> None:
        self._engine = engine
        self._block = block
        self._trials: deque[int] = deque()

    def study_id(self) -> int:
        """The next study id."""
        return self._fetch(tables.study_ids, 1)[0]

    def trial_id(self) -> int:
        """The next trial id; only every `block`-th call asks the database."""
        if not self._trials:
            self._trials.extend(self._fetch(tables.trial_ids, self._block))
        return self._trials.popleft()

    def _fetch(self, sequence: Sequence, count: int) -> list[int]:
        number = func.generate_series(1, count).table_valued("number")
        with self._engine.begin() as connection:
            return list(connection.scalars(select(sequence.next_value()).select_from(number)))
