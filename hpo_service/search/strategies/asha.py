"""Asynchronous successive halving that promotes: every trial pauses at every rung, the best of a rung go on."""

from dataclasses import dataclass

from hpo_service.search.strategies import ranking
from hpo_service.search.strategies.base import Judgement, Step, StudyView


@dataclass(frozen=True)
class Asha:
    """One in `reduction_factor` trials of a rung advances; with fewer results than that, none does."""

    reduction_factor: int

    def propose(self, view: StudyView) -> Step:
        """The baseline, else an advance from a rung as high as possible, else a start, else the way to the end."""
        return (
            ranking.first_duties(view)
            or ranking.best_of_the_study(view.roster, self.reduction_factor)
            or ranking.start(view)
            or ranking.conclude(view)
        )

    def judge(self, view: StudyView, trial_number: int) -> Judgement:
        """Always pause: whether a trial advances may change with every later result."""
        reason = ranking.standing_in_study(view.roster, view.trials[trial_number], self.reduction_factor)
        return Judgement(verdict="pause", reason=reason)
