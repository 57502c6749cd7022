"""What is computed once: a run of a strategy on a task with so many workers and a seed. Rows lie in JSONL files."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

Key = tuple[str, int, int]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A run that is wanted. `digest` names the code and the table that it depends on, `budget` is in R."""

    strategy: str
    task: str
    workers: int
    seed: int
    budget: float
    digest: str

    @property
    def key(self) -> Key:
        """Which run of its strategy it is."""
        return self.task, self.workers, self.seed


@dataclass(frozen=True, kw_only=True)
class Row(Cell):
    """A run that was made. `history` holds (bill in R, best loss so far) where it improved, `bill` is in R."""

    bill: float
    trials: int
    wall_seconds: float
    decision_p95_ms: float
    history: tuple[tuple[float, float], ...]

    def answers(self, cell: Cell) -> bool:
        """Whether this run is the wanted one, made with the same code and at least its budget."""
        return self.key == cell.key and self.digest == cell.digest and self.budget >= cell.budget

    def loss_at(self, bill: float) -> float:
        """Best loss for a bill; infinite before the first result."""
        return next((loss for spent, loss in reversed(self.history) if spent <= bill), float("inf"))


def to_line(cell: Cell) -> str:
    """One line of JSON."""
    return json.dumps(asdict(cell), separators=(",", ":"))


def cell_from(line: str) -> Cell:
    """The inverse of `to_line`."""
    return Cell(**json.loads(line))


def row_from(line: str) -> Row:
    """The inverse of `to_line`."""
    values = json.loads(line)
    return Row(**{**values, "history": tuple((bill, loss) for bill, loss in values["history"])})


class Shelf:
    """The rows of one strategy in one file, one a (task, workers, seed): the last line counts."""

    def __init__(self, folder: Path, strategy: str) -> None:
        self._path = folder / f"{strategy}.jsonl"
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        self.rows: dict[Key, Row] = {row.key: row for row in map(row_from, lines)}

    def find(self, cell: Cell) -> Row | None:
        """The row that answers the cell, if it is here."""
        row = self.rows.get(cell.key)
        return row if row is not None and row.answers(cell) else None

    def add(self, row: Row) -> None:
        """Written at once: what is computed is not lost."""
        self.rows[row.key] = row
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(to_line(row) + "\n")

    def tidy(self) -> None:
        """Drop what is outdated and sort, so that equal rows make equal files."""
        if self.rows:
            self._path.write_text("".join(to_line(self.rows[key]) + "\n" for key in sorted(self.rows)))

    def extend(self, rows: Iterable[Row]) -> None:
        """Take rows of another shelf."""
        for row in rows:
            if self.rows.get(row.key) != row:
                self.add(row)
