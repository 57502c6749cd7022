"""A study in a test: a spec in a few words, and a simulation that trains on synthetic curves."""

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from hpo_service.samplers import propose_assignment
from hpo_service.search_space import SearchSpace
from hpo_service.spec import ResolvedStudy, parse_spec, resolve
from hpo_service.strategies import build
from hpo_service.strategies.base import Advance, Finished, Start, StudyView, TrialView, Wait
from trainer.spec import Outcome, Parameters

RATE = {"low": 1e-5, "high": 1e-2, "log": True}


def document(**sections: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "study"},
        "model": {"path": "model"},
        "data": {"train": "train.jsonl"},
        **sections,
    }


def resolved(*, train_rows: int = 1000, **sections: Any) -> ResolvedStudy:
    if "preset" not in sections:
        sections = {"space": {"learning_rate": RATE}, **sections}
    spec = parse_spec(document(**sections))
    return resolve(spec, model_path="/m", train="/t", eval=None, train_rows=train_rows, eval_rows=100)


def space_of(*constraints: str, **parameters: Any) -> SearchSpace:
    return SearchSpace.parse(parameters, constraints, {"train_rows": 1000})


def trial(number: int, standing: Any = "paused", losses: Iterable[float] = (), **more: Any) -> TrialView:
    """A trial on the ladder 10, 30, 100 with losses at its first rungs."""
    ladder = (10, 30, 100)
    return TrialView(
        number=number, standing=standing, losses=dict(zip(ladder, losses, strict=False)), ladder=ladder, **more
    )


def view(*trials: TrialView, max_trials: int = 100, decision_number: int = 0) -> StudyView:
    return StudyView(
        seed=0, decision_number=decision_number, max_trials=max_trials, trials=trials, ladder=(10, 30, 100)
    )


def synthetic_loss(parameters: Parameters, examples: int) -> float:
    """Best at a learning rate of 3e-4; good trials fall faster."""
    distance = math.log10(parameters.learning_rate / 3e-4)
    return 1.0 + 0.3 * distance**2 + (1 + 0.2 * abs(distance)) * float(examples**-0.3)


@dataclass
class Simulation:
    """Workers that take as long as a slice has examples. `fails` names trials that diverge in their first slice."""

    study: ResolvedStudy
    workers: int = 1
    fails: frozenset[int] = frozenset()
    trials: list[TrialView] = field(default_factory=list)
    decisions: int = 0
    spent: int = 0
    reasons: list[str] = field(default_factory=list)

    def view(self) -> StudyView:
        return StudyView(
            seed=self.study.search.seed,
            decision_number=self.decisions,
            max_trials=self.study.budget.max_trials,
            trials=tuple(self.trials),
            ladder=self.study.ladder,
        )

    def run(self) -> Finished:
        strategy, space = build(self.study), self.study.search_space()
        points = [self.study.baseline] if self.study.baseline else []
        for point in (*points, *self.study.enqueue):
            number = len(self.trials)
            self.trials.append(
                TrialView(
                    number=number,
                    standing="waiting",
                    sampled=space.encode(point),
                    baseline=number == 0 and bool(points),
                )
            )
        clock, running = 0, list[tuple[int, int, int]]()
        while True:
            while len(running) < self.workers:
                step = strategy.propose(self.view())
                if isinstance(step, Finished):
                    assert not running
                    return step
                if isinstance(step, Wait):
                    assert running
                    break
                number, until = self._begin(space, step)
                self.reasons.append(step.reason)
                heapq.heappush(running, (clock + until - self.trials[number].rung, number, until))
            clock, number, until = heapq.heappop(running)
            self._end(strategy, number, until)

    def _begin(self, space: SearchSpace, step: Start | Advance) -> tuple[int, int]:
        if isinstance(step, Advance):
            number, until = step.trial_number, step.until_examples
            assert self.trials[number].standing == "paused"
            assert until in self.trials[number].ladder
        else:
            known = None if step.trial_number is None else self.trials[step.trial_number]
            fixed = {} if known is None else known.sampled
            assignment, _ = propose_assignment(space, self.view(), self.study.search.sampler, fixed)
            number = len(self.trials) if known is None else known.number
            ladder = self.study.trial_rungs(assignment.parameters)
            started = TrialView(
                number=number,
                standing="running",
                sampled=assignment.sampled,
                parameters=assignment.parameters.model_dump(),
                ladder=ladder,
                baseline=known is not None and known.baseline,
            )
            self.trials[number:] = [started, *self.trials[number + 1 :]]
            until = ladder[0]
        self.decisions += 1
        self.trials[number] = replace(self.trials[number], standing="running", running_to=until)
        return number, until

    def _end(self, strategy: Any, number: int, until: int) -> None:
        known = self.trials[number]
        self.spent += until - known.rung
        if number in self.fails:
            self.trials[number] = replace(known, standing="failed", outcome=Outcome.DIVERGED, running_to=None)
            return
        loss = synthetic_loss(Parameters.model_validate(known.parameters), until)
        reported = replace(known, losses={**known.losses, until: loss}, running_to=None)
        self.trials[number] = reported
        if until == known.ladder[-1]:
            self.trials[number] = replace(reported, standing="complete")
            return
        verdict = strategy.judge(self.view(), number)
        self.reasons.append(verdict.reason)
        self.trials[number] = replace(reported, standing="paused" if verdict.verdict == "pause" else "pruned")
