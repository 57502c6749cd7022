"""The strategies that the dispatcher runs, driven by the simulation through the same interface."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmarks.search.simulation import Resume, Start, Trial
from benchmarks.search.tables import Array, Table
from hpo_service.core import study_rules as domain
from hpo_service.search.samplers import SamplerName, propose_assignment
from hpo_service.search.strategies.base import Advance, Step, Strategy, StudyView, TrialView
from hpo_service.search.strategies.base import Start as StartTrial
from hpo_service.search.strategies.nearness import Exhausted
from hpo_service.spec.space import Assignment, FloatRange, SearchSpace

FIRST_RUNG = 0.06
UNLIMITED = 10**6
MakeStrategy = Callable[[SearchSpace, int], Strategy]


def space_of(table: Table) -> SearchSpace:
    """A coordinate of the table is a parameter between 0 and 1."""
    return SearchSpace({f"x{index}": FloatRange(low=0, high=1) for index in range(table.dimensions)}, (), {})


class Ours:
    """A strategy of the service on one table. Fidelities of the table stand for examples."""

    evaluates_always = False

    def __init__(
        self,
        table: Table,
        make: MakeStrategy,
        *,
        workers: int,
        seed: int,
        sampler: SamplerName = "tpe",
        rung_factor: float = 1.7,
        max_trials: int = UNLIMITED,
    ) -> None:
        self._space = space_of(table)
        self._strategy = make(self._space, table.fidelities)
        self._sampler = sampler
        self._ladder = domain.ladder(table.fidelities, FIRST_RUNG, rung_factor)
        self._views: list[TrialView] = []
        self._trials: list[Trial] = []
        self._study = StudyView(
            seed=seed, decision_number=0, max_trials=max_trials, trials=(), ladder=self._ladder, slots=workers
        )

    def next(self) -> Start | Resume | None:
        """The strategy's next slice."""
        view = replace(self._study, trials=tuple(self._views))
        step = self._proposed(view)
        if isinstance(step, Advance):
            self._decided(step)
            self._change(step.trial_number, standing="running", running_to=step.until_examples)
            return Resume(self._trials[step.trial_number], step.until_examples)
        if isinstance(step, StartTrial):
            assert step.assignment is not None
            self._decided(step)
            return Start(self._point(step.assignment), self._ladder[0])
        return None

    def _proposed(self, view: StudyView) -> Step:
        """A start has its assignment."""
        step = self._strategy.propose(view)
        if not isinstance(step, StartTrial) or step.assignment is not None:
            return step
        try:
            found, _ = propose_assignment(self._space, view, self._sampler, None)
        except Exhausted as exhausted:
            return self._strategy.propose(view.when_exhausted(str(exhausted)))
        return replace(step, assignment=found)

    def started(self, trial: Trial, point: Array) -> None:
        """The trial is where the table has a row."""
        sampled = {name: float(value) for name, value in zip(self._space.dimensions, point, strict=True)}
        self._trials.append(trial)
        self._views.append(
            TrialView(
                number=trial.number,
                standing="running",
                sampled=sampled,
                parameters=sampled,
                ladder=self._ladder,
                running_to=self._ladder[0],
            )
        )

    def report(self, trial: Trial, loss: float, seconds: float) -> bool:
        """Every slice ends at a rung."""
        number = trial.number
        self._change(
            number,
            standing="paused",
            losses={**self._views[number].losses, trial.seen: loss},
            running_to=None,
            cost_per_example=seconds / trial.seen,
        )
        if trial.seen == self._ladder[-1]:
            self._change(number, standing="complete")
            return False
        view = replace(self._study, trials=tuple(self._views))
        if self._strategy.judge(view, number).verdict == "prune":
            self._change(number, standing="pruned")
        return False

    def _decided(self, step: Step) -> None:
        assert isinstance(step, Advance | StartTrial)
        memory = self._study.memory if step.memory is None else step.memory
        self._study = replace(self._study, decision_number=self._study.decision_number + 1, memory=memory)

    def _change(self, number: int, **changes: object) -> None:
        self._views[number] = replace(self._views[number], **changes)  # type: ignore[arg-type]

    def _point(self, assignment: Assignment) -> Array:
        return np.array([float(assignment.sampled[name]) for name in self._space.dimensions])
