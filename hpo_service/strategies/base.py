"""The strategy port: a pure function from what is committed about a study to what to run next."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from hpo_service.search_space import Assignment
from hpo_service.spec.objectives import LOSS, Objective
from trainer.spec import Outcome

Numbers = Mapping[str, float | int | str | None]

TrialStanding = Literal["waiting", "running", "paused", "complete", "pruned", "failed"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a trial of a confirmation is: a trial of the search trained again from its start, with another seed."""

    candidate: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class TrialView:
    """A trial as strategies see it.

    `sampled` are the values in Optuna's coding (numeric choices as an index), `parameters` the resolved ones.
    `losses` maps nominal rungs (examples) to evaluation losses. `ladder` ends with the trial's own total.
    A running trial's `running_to` is the rung of its slice. `cost_per_example` is what a training example of this
    trial costs, evaluation included: worker seconds times devices, in a deterministic study predicted FLOPs; None
    before its first rung. `fold_losses` maps rungs to the mean losses of fixed folds of the evaluation examples, the
    same examples for every trial; empty where they are not known. `measures` are the values of the study's other
    objectives, known after the first slice. `run` is set in a confirmation only.
    """

    number: int
    standing: TrialStanding
    sampled: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    losses: Mapping[int, float] = field(default_factory=dict)
    ladder: tuple[int, ...] = ()
    baseline: bool = False
    outcome: Outcome | None = None
    running_to: int | None = None
    cost_per_example: float | None = None
    fold_losses: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    measures: Mapping[str, float] = field(default_factory=dict)
    run: Run | None = None

    @property
    def rung(self) -> int:
        """The highest rung with a loss, 0 before the first."""
        return max(self.losses, default=0)

    @property
    def next_rung(self) -> int | None:
        """The rung after the current one; None at the trial's end."""
        return next((rung for rung in self.ladder if rung > self.rung), None)


@dataclass(frozen=True, kw_only=True)
class StudyView:
    """All that a proposal may depend on.

    `decision_number` counts accepted proposals; with `seed` it keys all randomness. `slots` is how many slices the
    study may have running. `memory` is what the last accepted proposal asked to be remembered (JSON), committed with
    that decision: a strategy that learns keeps here what it does not want to learn anew each time.
    """

    seed: int
    decision_number: int
    max_trials: int
    trials: tuple[TrialView, ...]
    ladder: tuple[int, ...]
    slots: int = 1
    memory: Mapping[str, Any] = field(default_factory=dict)
    objectives: tuple[Objective, ...] = (LOSS,)

    def standing(self, *standings: TrialStanding) -> list[TrialView]:
        """Trials in any of the standings, by number."""
        return [trial for trial in self.trials if trial.standing in standings]


@dataclass(frozen=True, kw_only=True)
class Advance:
    """Take a paused trial to its next rung. `numbers` are behind the decision, for people; `memory` as in the view."""

    trial_number: int
    until_examples: int
    reason: str
    numbers: Numbers = field(default_factory=dict)
    memory: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Start:
    """Begin a trial: the enqueued one with this number, or (None) a new one.

    A new one has this `assignment`, or one that the study's sampler proposes; with `run` it is that run of a
    confirmation. `numbers` and `memory` as in `Advance`.
    """

    trial_number: int | None
    reason: str
    assignment: Assignment | None = None
    run: Run | None = None
    numbers: Numbers = field(default_factory=dict)
    memory: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Nothing to dispatch until a running slice ends."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The study has nothing left to do."""

    reason: str


Step = Advance | Start | Wait | Finished


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What becomes of a trial that reached a rung short of its end. `reason` names the numbers that decided."""

    verdict: Literal["pause", "prune"]
    reason: str


class Strategy(Protocol):
    """Decides the next slice of a study. Pure: no I/O, no clock, no state between calls."""

    def propose(self, view: StudyView) -> Step:
        """The next slice, or why there is none."""

    def judge(self, view: StudyView, trial_number: int) -> Judgement:
        """Called when a trial has just reported a rung that is not its last; the loss is already in the view."""
