"""Hyperband: successive halving in several brackets that begin at later and later rungs.

What an early rung says about the end differs from study to study. The first bracket trusts it fully, the last not at
all. Within a bracket trials advance asynchronously, as in asha (Li et al. 2018; Optuna's HyperbandPruner likewise).
"""

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate

from hpo_service.core import study_rules
from hpo_service.search.strategies import ranking
from hpo_service.search.strategies.base import Advance, Judgement, Step, StudyView, TrialView

#: multiples of it modulo 1 fill every interval in proportion to its length, whatever the number of trials
_GOLDEN_RATIO = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Hyperband:
    """One in `reduction_factor` trials of a bracket advances from a rung."""

    reduction_factor: int

    def propose(self, view: StudyView) -> Step:
        """The baseline, else up to where a bracket begins, else an advance, else a start, else the way to the end."""
        return (
            ranking.first_duties(view)
            or self._to_the_beginning(view)
            or self._advance(view)
            or ranking.start(view)
            or ranking.conclude(view)
        )

    def judge(self, view: StudyView, trial_number: int) -> Judgement:
        """Always pause: whether a trial advances may change with every later result."""
        trial, bracket = view.trials[trial_number], self.bracket(trial_number, view.ladder)
        if trial.rung < min(view.ladder[bracket], trial.ladder[-1]):
            return Judgement(verdict="pause", reason=f"bracket {bracket} begins at {view.ladder[bracket]} examples")
        standing = ranking.standing(self._brackets(view)[bracket], trial, self.reduction_factor)
        return Judgement(verdict="pause", reason=f"bracket {bracket}: {standing}")

    def bracket(self, trial_number: int, ladder: tuple[int, ...]) -> int:
        """The index of the rung at which the trial is judged first, fixed by its number.

        Every bracket gets about the same share of the examples, so the later it begins the fewer trials it has.
        """
        return _bracket(trial_number, self._edges(ladder))

    def _edges(self, ladder: tuple[int, ...]) -> list[float]:
        """Where the share of each bracket ends, between 0 and 1."""
        return list(accumulate(study_rules.bracket_shares(ladder, self.reduction_factor)))

    def _to_the_beginning(self, view: StudyView) -> Advance | None:
        for index, trials in enumerate(self._brackets(view)):
            for trial in trials:
                beginning = min(view.ladder[index], trial.ladder[-1]) if trial.standing == "paused" else 0
                if trial.rung < beginning:
                    reason = f"bracket {index} begins at {view.ladder[index]} examples"
                    return Advance(trial_number=trial.number, until_examples=beginning, reason=reason)
        return None

    def _advance(self, view: StudyView) -> Advance | None:
        found = (
            ranking.best_of_a_rung(trials, self.reduction_factor, f"bracket {index}: ")
            for index, trials in enumerate(self._brackets(view))
        )
        steps = [step for step in found if step is not None]
        return max(steps, key=lambda step: step.until_examples, default=None)

    def _brackets(self, view: StudyView) -> list[list[TrialView]]:
        """The trials of each bracket."""
        edges = self._edges(view.ladder)
        brackets: list[list[TrialView]] = [[] for _ in edges]
        for trial in view.trials:
            brackets[_bracket(trial.number, edges)].append(trial)
        return brackets


def _bracket(trial_number: int, edges: list[float]) -> int:
    return min(bisect_right(edges, trial_number * _GOLDEN_RATIO % 1), len(edges) - 1)
