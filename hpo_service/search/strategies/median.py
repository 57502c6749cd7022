"""The median rule among trials at the same rung, those that still run or were pruned included."""

from dataclasses import dataclass
from math import inf, isnan
from statistics import median

from hpo_service.search.strategies import ranking
from hpo_service.search.strategies.base import Judgement, Step, StudyView


@dataclass(frozen=True)
class Median:
    """Prunes a trial that is worse than the median of at least `startup_trials` others at its rung."""

    startup_trials: int

    def propose(self, view: StudyView) -> Step:
        """The baseline, else the oldest paused trial, else a start, else the way to the end."""
        return ranking.first_duties(view) or ranking.next_in_line(view) or ranking.start(view) or ranking.conclude(view)

    def judge(self, view: StudyView, trial_number: int) -> Judgement:
        """Pause what is no worse than the median; the baseline and the last hope of a study are never pruned."""
        trial = view.trials[trial_number]
        rung, loss = trial.rung, trial.losses[trial.rung]
        losses = [other.losses[rung] for other in ranking.at_rung(view, rung) if other.number != trial_number]
        others = [inf if isnan(each) else each for each in losses]
        if trial.baseline:
            return Judgement(verdict="pause", reason="the baseline is never pruned")
        if len(others) < self.startup_trials:
            return Judgement(
                verdict="pause", reason=f"{len(others)} others at {rung} examples, {self.startup_trials} are needed"
            )
        limit = median(others)
        compared = f"{loss:.6g} against the median {limit:.6g} of {len(others)} others at {rung} examples"
        if loss <= limit:
            return Judgement(verdict="pause", reason=compared)
        if _is_last_hope(view, trial_number):
            return Judgement(verdict="pause", reason=f"{compared}, but no other trial is left")
        return Judgement(verdict="prune", reason=compared)


def _is_last_hope(view: StudyView, trial_number: int) -> bool:
    if len(view.trials) < view.max_trials:
        return False
    alive = view.standing("waiting", "running", "paused", "complete")
    return not any(trial.number != trial_number and not trial.baseline for trial in alive)
