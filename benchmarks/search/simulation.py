"""A discrete-event simulation of W workers on a table of curves.

The bill is workers x clock, idle workers are paid; its unit R is one full trial of mean cost. A start or a resume costs
2 % of R on top; a worker that goes on with the trial it has just trained pays nothing, for it is still resident. A
configuration that is asked for snaps to the nearest row of the table that is not taken yet.
"""

import heapq
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from benchmarks.search.tables import Array, Table

START_UP = 0.02


@dataclass
class Trial:
    """One row of the table under way. `seen` are fidelities behind it."""

    number: int
    row: int
    seen: int = 0
    running: bool = False


@dataclass(frozen=True)
class Start:
    """Train a new trial at `point` [d] until so many fidelities."""

    point: Array
    until: int


@dataclass(frozen=True)
class Resume:
    """Take a trial on until so many fidelities."""

    trial: Trial
    until: int


class Searcher(Protocol):
    """What is compared: our strategies, and the peers' own libraries."""

    evaluates_always: bool
    """Whether it sees the loss at every fidelity, or only where a task ends."""

    def next(self) -> Start | Resume | None:
        """What a free worker does; None: it idles until another result comes."""

    def started(self, trial: Trial, point: Array) -> None:
        """The trial of the last `Start` stands at `point`, a row of the table."""

    def report(self, trial: Trial, loss: float, seconds: float) -> bool:
        """The loss after `trial.seen` fidelities, which took `seconds` in all. True: go on to the end of the task."""


@dataclass
class Outcome:
    """How a run went. `history` holds (bill in R, best loss so far), only where it improved."""

    history: list[tuple[float, float]] = field(default_factory=list)
    bill: float = 0.0
    trials: int = 0
    fidelities: int = 0

    def loss_at(self, bill: float) -> float:
        """Best loss for a bill; infinite before the first result."""
        return next((loss for spent, loss in reversed(self.history) if spent <= bill), float("inf"))


@dataclass(order=True)
class _Event:
    at: float
    order: int
    worker: int = field(compare=False)
    trial: Trial = field(compare=False)
    until: int = field(compare=False)


class _Run:
    def __init__(self, table: Table, searcher: Searcher, workers: int, budget: float) -> None:
        self._table, self._searcher, self._workers, self._budget = table, searcher, workers, budget
        self._unit = table.full_seconds
        self._trials: list[Trial] = []
        self._taken = np.zeros(len(table.u), dtype=bool)
        self._events: list[_Event] = []
        self._last: dict[int, Trial] = {}
        self._order = 0
        self.outcome = Outcome()

    def run(self) -> Outcome:
        idle = [worker for worker in range(self._workers) if not self._begin(worker, 0.0)]
        while self._events:
            event = heapq.heappop(self._events)
            bill = self._workers * event.at / self._unit
            if bill > self._budget:
                self.outcome.bill = self._budget
                break
            self.outcome.bill = bill
            if self._advance(event, bill):
                continue
            idle = [worker for worker in (event.worker, *idle) if not self._begin(worker, event.at)]
        self.outcome.trials = len(self._trials)
        self.outcome.fidelities = sum(trial.seen for trial in self._trials)
        return self.outcome

    def _begin(self, worker: int, now: float) -> bool:
        task = self._searcher.next()
        if task is None:
            return False
        trial = task.trial if isinstance(task, Resume) else self._new(task.point)
        trial.running = True
        start_up = 0.0 if self._last.get(worker) is trial else START_UP * self._unit
        self._last[worker] = trial
        self._schedule(worker, trial, task.until, now + start_up)
        return True

    def _new(self, point: Array) -> Trial:
        distance = ((self._table.u - point) ** 2).sum(axis=1)
        distance[self._taken] = np.inf
        row = int(distance.argmin())
        self._taken[row] = True
        trial = Trial(len(self._trials), row)
        self._trials.append(trial)
        self._searcher.started(trial, self._table.u[row])
        return trial

    def _schedule(self, worker: int, trial: Trial, until: int, now: float) -> None:
        stop = trial.seen + 1 if self._searcher.evaluates_always else until
        seconds = float(self._table.seconds[trial.row, trial.seen : stop].sum())
        self._order += 1
        heapq.heappush(self._events, _Event(now + seconds, self._order, worker, trial, until))

    def _advance(self, event: _Event, bill: float) -> bool:
        """Whether the worker goes on with its task."""
        trial = event.trial
        trial.seen = trial.seen + 1 if self._searcher.evaluates_always else event.until
        loss = float(self._table.loss[trial.row, trial.seen - 1])
        if not self.outcome.history or loss < self.outcome.history[-1][1]:
            self.outcome.history.append((bill, loss))
        trial.running = False
        seconds = float(self._table.seconds[trial.row, : trial.seen].sum())
        wanted = self._searcher.report(trial, loss, seconds)
        if not wanted or trial.seen >= event.until:
            return False
        trial.running = True
        self._schedule(event.worker, trial, event.until, event.at)
        return True


def simulate(table: Table, searcher: Searcher, *, workers: int, budget: float) -> Outcome:
    """Run until the bill exceeds `budget` (in R) or nothing is left to do."""
    return _Run(table, searcher, workers, budget).run()
