"""The work of a process that computes cells: a cell a line comes in, its row goes out."""

import sys
from collections.abc import Callable
from functools import cache
from math import ceil, floor, inf, log10
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.search.cells import Cell, Row, cell_from, to_line
from benchmarks.search.simulation import Resume, Searcher, Start, Trial, simulate
from benchmarks.search.tables import Array, Table, load

MakeSearcher = Callable[[Table, int, int], Searcher]
"""Of a table, a number of workers and a seed."""


class Timed:
    """A searcher, and the seconds that each of its decisions took."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher
        self.evaluates_always = searcher.evaluates_always
        self.decision_seconds: list[float] = []

    def next(self) -> Start | Resume | None:
        """Timed if it decides anything."""
        begun = perf_counter()
        task = self._searcher.next()
        if task is not None:
            self.decision_seconds.append(perf_counter() - begun)
        return task

    def started(self, trial: Trial, point: Array) -> None:
        """Passed on."""
        self._searcher.started(trial, point)

    def report(self, trial: Trial, loss: float, seconds: float) -> bool:
        """Passed on."""
        return self._searcher.report(trial, loss, seconds)


def replay(cell: Cell, table: Table, make: MakeSearcher) -> Row:
    """Compute a cell."""
    begun = perf_counter()
    searcher = Timed(make(table, cell.workers, cell.seed))
    outcome = simulate(table, searcher, workers=cell.workers, budget=cell.budget)
    return Row(
        strategy=cell.strategy,
        task=cell.task,
        workers=cell.workers,
        seed=cell.seed,
        budget=cell.budget,
        digest=cell.digest,
        bill=round(outcome.bill, 3),
        trials=outcome.trials,
        wall_seconds=round(perf_counter() - begun, 2),
        decision_p95_ms=round(1000 * float(np.percentile(searcher.decision_seconds, 95)), 2),
        history=shortened(outcome.history, table.best),
    )


def shortened(history: list[tuple[float, float]], lowest: float) -> tuple[tuple[float, float], ...]:
    """Only improvements that take 1 % off the distance to the lowest loss, and the last one; bills rounded up."""
    kept: dict[float, float] = {}
    distance = inf
    for index, (bill, loss) in enumerate(history):
        if loss - lowest <= 0.99 * distance or index == len(history) - 1:
            distance = loss - lowest
            unit = 10.0 ** (floor(log10(bill)) - 2)
            kept[float(f"{ceil(bill / unit - 1e-9) * unit:.3g}")] = float(f"{loss:.7g}")
    return tuple(kept.items())


def serve(make: Callable[[str], MakeSearcher], folder: Path) -> None:
    """Cells from standard input, rows to standard output. `make` knows the strategies, `folder` has the tables."""
    answers, sys.stdout = sys.stdout, sys.stderr
    table = cache(lambda name: load(folder / f"{name}.npz"))
    for line in sys.stdin:
        cell = cell_from(line)
        answers.write(to_line(replay(cell, table(cell.task), make(cell.strategy))) + "\n")
        answers.flush()
