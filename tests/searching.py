"""A study in a test: a spec in a few words, and a simulation that trains on synthetic curves."""

import heapq
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hpo_service.search.samplers import propose_assignment
from hpo_service.search.strategies import build
from hpo_service.search.strategies.base import Advance, Finished, Start, Step, StudyView, TrialStanding, TrialView, Wait
from hpo_service.search.strategies.nearness import Exhausted
from hpo_service.spec import ResolvedStudy, parse_spec, resolve
from hpo_service.spec.space import Assignment, Categories, Dimension, SearchSpace
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


def unrounded(space: SearchSpace) -> SearchSpace:
    """The space as studies have it that are older than the rule by which sampled floats are rounded."""
    older = space.to_json()
    for form in older["parameters"].values():
        form.pop("digits", None)
    return SearchSpace.from_json(older)


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


def distance(space: SearchSpace, one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """The largest difference of two points in the unit cube of the space, 1 at most."""
    return max(_difference(space.dimension(name), one.get(name), other.get(name)) for name in space.dimensions)


def _difference(form: Dimension, one: Any, other: Any) -> float:
    if one is None or other is None:
        return float(one is not other)
    return float(one != other) if isinstance(form, Categories) else abs(form.share(one) - form.share(other))


def refined(reason: str) -> set[int]:
    """The numbers of the trials that a new one refines, says its reason."""
    return {int(number) for number in re.findall(r"trial (\d+)", reason.partition("it refines")[2])}


def synthetic_loss(parameters: Parameters, examples: int) -> float:
    """Best at a learning rate of 3e-4; good trials fall faster."""
    distance = math.log10(parameters.learning_rate / 3e-4)
    return 1.0 + 0.3 * distance**2 + (1 + 0.2 * abs(distance)) * float(examples**-0.3)


@dataclass
class Simulation:
    """Workers that take as long as a slice has examples, times the `pace` of its trial.

    `noise` is added to the loss of a trial at a rung.

    `fails` names trials that diverge in their first slice. `mishap` answers how the n-th attempt of a trial to reach a
    rung ends otherwise: DONE, OOM and DIVERGED as in the service, PREEMPTED without a loss and the trial paused, LOST
    without one and the trial failed, None with a loss that is no number. `changes` happen before the decision so
    numbered.
    A `forgetful` one is stopped and rebuilt from what is committed before every decision.
    """

    study: ResolvedStudy
    workers: int = 1
    fails: frozenset[int] = frozenset()
    mishap: Callable[[int, int, int], Outcome | None] = lambda number, until, attempt: Outcome.DONE
    pace: Callable[[int], float] = lambda number: 1.0
    noise: Callable[[int, int], float] = lambda number, until: 0.0
    changes: Mapping[int, Callable[["Simulation"], None]] = field(default_factory=dict)
    forgetful: bool = False
    trials: list[TrialView] = field(default_factory=list)
    decisions: int = 0
    memory: Mapping[str, Any] = field(default_factory=dict)
    spent: int = 0
    reasons: list[str] = field(default_factory=list)
    attempts: Counter[tuple[int, int]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.adopt(self.study)
        points = [self.study.baseline] if self.study.baseline else []
        for point in (*points, *self.study.enqueue):
            self.enqueue(point, baseline=not self.trials and bool(points))

    def adopt(self, study: ResolvedStudy) -> None:
        """Go on with this spec."""
        self.study, self.space, self.strategy = study, study.search_space(), build(study)

    def enqueue(self, point: Mapping[str, Any], *, baseline: bool = False) -> None:
        """Add a waiting trial."""
        number, sampled = len(self.trials), self.space.point(point)
        self.trials.append(TrialView(number=number, standing="waiting", sampled=sampled, baseline=baseline))

    def view(self) -> StudyView:
        return StudyView(
            seed=self.study.search.seed,
            decision_number=self.decisions,
            max_trials=self.study.budget.max_trials,
            trials=tuple(self.trials),
            ladder=self.study.ladder,
            slots=self.workers,
            memory=self.memory,
        )

    def run(self) -> Finished:
        """Until nothing is left to do. Every decision is checked on the way."""
        clock, running = 0.0, list[tuple[float, int, int]]()
        while True:
            while len(running) < self.workers:
                step = self._next()
                if isinstance(step, Finished):
                    assert not running
                    return step
                if isinstance(step, Wait):
                    assert running
                    break
                number, until = self._begin(step)
                seconds = (until - self.trials[number].rung) * self.pace(number)
                heapq.heappush(running, (clock + seconds, number, until))
            clock, number, until = heapq.heappop(running)
            self._end(number, until)

    def _next(self) -> Step:
        assert self.decisions < 40 * self.study.budget.max_trials, "the study does not end"
        if self.decisions in self.changes:
            self.changes[self.decisions](self)
        if self.forgetful:
            self.memory = json.loads(json.dumps(self.memory))
            self.adopt(ResolvedStudy.model_validate(json.loads(json.dumps(self.study.model_dump(mode="json")))))
        step = self.strategy.propose(self.view())
        if not isinstance(step, Start) or step.assignment is not None:
            return step
        fixed = None if step.trial_number is None else self.trials[step.trial_number].sampled
        try:
            assignment, _ = propose_assignment(self.space, self.view(), self.study.search.sampler, fixed)
        except Exhausted as exhausted:
            return self.strategy.propose(self.view().when_exhausted(str(exhausted)))
        return replace(step, assignment=assignment)

    def _begin(self, step: Start | Advance) -> tuple[int, int]:
        if isinstance(step, Advance):
            number, until = step.trial_number, step.until_examples
            assert self.trials[number].standing == "paused"
            assert until in self.trials[number].ladder
            assert until > self.trials[number].rung
        else:
            number, until = self._start(step)
        self.reasons.append(f"{number} to {until}: {step.reason}")
        self.decisions += 1
        self.memory = self.memory if step.memory is None else dict(step.memory)
        self.trials[number] = replace(self.trials[number], standing="running", running_to=until)
        return number, until

    def _start(self, step: Start) -> tuple[int, int]:
        known = None if step.trial_number is None else self.trials[step.trial_number]
        assert known is None or known.standing == "waiting"
        assert known is not None or len(self.trials) < self.study.budget.max_trials
        fixed = {} if known is None else known.sampled
        assignment = step.assignment
        assert assignment is not None
        self._require_possible(assignment, fixed)
        if known is None:
            self._require_apart(assignment, step)
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
        return number, ladder[0]

    def _require_possible(self, assignment: Assignment, fixed: Mapping[str, Any]) -> None:
        assert self.space.point(assignment.sampled) == assignment.sampled
        assert self.space.assignment(assignment.sampled) == assignment
        assert self.space.feasible(assignment) is None
        assert assignment.sampled.items() >= dict(fixed).items()

    def _require_apart(self, assignment: Assignment, step: Start) -> None:
        """What is sampled is near no trial; a refinement may be nearer to the one that its reason names."""
        for trial in self.trials:
            gap = distance(self.space, assignment.sampled, trial.sampled)
            least = 0.005 if trial.number in refined(step.reason) else 0.02
            assert gap > least - 1e-9, f"{step.reason}: {gap} from trial {trial.number}"

    def _end(self, number: int, until: int) -> None:
        known = replace(self.trials[number], running_to=None)
        self.attempts[number, until] += 1
        attempt = self.attempts[number, until]
        outcome = Outcome.DIVERGED if number in self.fails else self.mishap(number, until, attempt)
        self.spent += until - known.rung
        if outcome in (Outcome.OOM, Outcome.DIVERGED, Outcome.LOST):
            self.trials[number] = replace(known, standing="failed", outcome=outcome)
            return
        if outcome is Outcome.PREEMPTED:
            self.trials[number] = replace(known, standing="paused")
            return
        self._report(known, until, math.nan if outcome is None else 1.0)

    def _report(self, known: TrialView, until: int, factor: float) -> None:
        parameters = Parameters.model_validate(known.parameters)
        loss = factor * (synthetic_loss(parameters, until) + self.noise(known.number, until))
        folds = tuple(
            loss * (1 + 0.05 * math.sin(fold) + 1e-3 * math.sin(known.number + until * fold)) for fold in range(8)
        )
        reported = replace(
            known,
            losses={**known.losses, until: loss},
            fold_losses={**known.fold_losses, until: folds},
            cost_per_example=1 + parameters.lora_r / 64,
        )
        self.trials[known.number] = replace(reported, standing="running")
        if until == known.ladder[-1]:
            self.trials[known.number] = replace(reported, standing="complete", outcome=Outcome.DONE)
            return
        verdict = self.strategy.judge(self.view(), known.number)
        self.reasons.append(verdict.reason)
        standing: TrialStanding = "paused" if verdict.verdict == "pause" else "pruned"
        self.trials[known.number] = replace(reported, standing=standing)
