"""What a bill holds."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from benchmarks.search.simulation import Outcome, Resume, Start, Trial, simulate
from benchmarks.search.tables import Array, Table

FIDELITIES = 10
STEP = Callable[["Script"], Start | Resume | None]


def table(rows: int = 4) -> Table:
    """Rows on a line, the last one is best; a full trial costs 10 seconds, so that R is 10 seconds."""
    u = np.linspace(0, 1, rows)[:, None]
    loss = 2 - u + np.linspace(1, 0, FIDELITIES)
    return Table("line", u, loss, np.ones_like(loss))


def start(point: float, until: int = FIDELITIES) -> STEP:
    return lambda _script: Start(np.array([point]), until)


def resume(number: int, until: int = FIDELITIES) -> STEP:
    return lambda script: Resume(script.trials[number], until)


@dataclass
class Script:
    """Does what is written down, then nothing."""

    steps: list[STEP]
    evaluates_always: bool = False
    stops_at: int = FIDELITIES
    trials: list[Trial] = field(default_factory=list)
    points: list[float] = field(default_factory=list)
    reports: list[tuple[int, int, float]] = field(default_factory=list)

    def next(self) -> Start | Resume | None:
        return self.steps.pop(0)(self) if self.steps else None

    def started(self, trial: Trial, point: Array) -> None:
        self.trials.append(trial)
        self.points.append(float(point[0]))

    def report(self, trial: Trial, loss: float, seconds: float) -> bool:
        self.reports.append((trial.number, trial.seen, seconds))
        return trial.seen < self.stops_at


def run(script: Script, workers: int = 1, budget: float = 50) -> Outcome:
    return simulate(table(), script, workers=workers, budget=budget)


def test_a_start_costs_two_hundredths_of_a_full_trial() -> None:
    assert run(Script([start(0)])).bill == pytest.approx(1.02)


def test_a_worker_that_goes_on_with_its_own_trial_pays_no_start_up() -> None:
    assert run(Script([start(0, 5), resume(0)])).bill == pytest.approx(1.02)


def test_a_resume_after_another_trial_pays_again() -> None:
    outcome = run(Script([start(0, 5), start(1, 5), resume(0)]))
    assert outcome.bill == pytest.approx(1.5 + 3 * 0.02)
    assert (outcome.trials, outcome.fidelities) == (2, 15)


def test_a_resume_on_another_worker_pays_again() -> None:
    script = Script([start(0, 2), start(1, 6), lambda _: None, resume(0, 4)])
    outcome = run(script, workers=2)
    assert [seen for _, seen, _ in script.reports] == [2, 6, 4]
    assert outcome.bill == pytest.approx(2 * (0.02 + 0.6 + 0.02 + 0.2)), "the worker that ended last is asked first"


def test_idle_workers_are_paid() -> None:
    assert run(Script([start(0)]), workers=3).bill == pytest.approx(3 * 1.02)


def test_an_idle_worker_is_asked_again_when_a_result_comes() -> None:
    script = Script([start(0, 5), lambda _: None, start(1, 5), start(0.5, 5)])
    outcome = run(script, workers=2)
    assert outcome.trials == 3
    assert outcome.bill == pytest.approx(2 * 2 * 0.52), "the second and third trial ran side by side"


def test_a_row_is_taken_once_and_the_search_is_told_which() -> None:
    script = Script([start(0.1, 1), start(0.1, 1), start(0.1, 1)])
    run(script)
    assert script.points == pytest.approx([0, 1 / 3, 2 / 3])


def test_what_comes_after_the_budget_does_not_count() -> None:
    script = Script([start(0, 5), resume(0), start(1)])
    outcome = run(script, budget=1.5)
    assert outcome.bill == 1.5
    assert len(outcome.history) == 2, "the best row would have ended at 2.04"
    assert outcome.history[-1] == pytest.approx((1.02, 2))


def test_who_evaluates_always_may_stop_a_trial_at_any_fidelity() -> None:
    script = Script([start(0)], evaluates_always=True, stops_at=3)
    outcome = run(script)
    assert script.reports == [(0, 1, 1), (0, 2, 2), (0, 3, 3)]
    assert outcome.bill == pytest.approx(0.32)


def test_the_history_holds_the_best_loss_for_a_bill() -> None:
    outcome = run(Script([start(1, 1), start(0, 1), start(1, 1)], evaluates_always=False))
    assert len(outcome.history) == 1
    assert outcome.history[0] == pytest.approx((0.12, 2))
    assert outcome.loss_at(0.1) == float("inf")
    assert outcome.loss_at(0.4) == pytest.approx(2)
