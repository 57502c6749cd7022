"""The strategy port: a pure function from what is committed about a study to what to run next."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Protocol, Self

from hpo_service.search.strategies.trials import Roster, Run, TrialStanding, TrialView
from hpo_service.spec.objectives import LOSS, Objective
from hpo_service.spec.space import Assignment

__all__ = [
    "Advance",
    "Finished",
    "Judgement",
    "Numbers",
    "Roster",
    "Run",
    "Start",
    "Step",
    "Strategy",
    "StudyView",
    "TrialStanding",
    "TrialView",
    "Wait",
]

Numbers = Mapping[str, float | int | str | None]


@dataclass(frozen=True, kw_only=True)
class StudyView:
    """All that a proposal may depend on.

    `decision_number` counts accepted proposals; with `seed` it keys all randomness. `slots` is how many slices the
    study may have running. `memory` is what the last accepted proposal asked to be remembered (JSON), committed with
    that decision: a strategy that learns keeps here what it does not want to learn anew each time. `closing` says why
    the search is over (a cap is near): only trials that lead are still trained to their end. `exhausted` says why there
    is no trial to begin, though the budget has room for more.
    """

    seed: int
    decision_number: int
    max_trials: int
    trials: tuple[TrialView, ...]
    ladder: tuple[int, ...]
    slots: int = 1
    memory: Mapping[str, Any] = field(default_factory=dict)
    objectives: tuple[Objective, ...] = (LOSS,)
    closing: str = ""
    exhausted: str = ""

    @cached_property
    def roster(self) -> Roster:
        """The trials, with what is known of their order."""
        return self.trials if isinstance(self.trials, Roster) else Roster.of(self.trials)

    def when_exhausted(self, reason: str) -> Self:
        """The view of a study whose space has no point left: it begins no more trials than it has."""
        return replace(self, max_trials=len(self.trials), exhausted=reason)

    def standing(self, *standings: TrialStanding) -> list[TrialView]:
        """Trials in any of the standings, by number."""
        if isinstance(self.trials, Roster):
            return self.trials.standing(*standings)
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
