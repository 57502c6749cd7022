"""No pruning: every trial is trained to its end."""

from hpo_service.search.strategies import ranking
from hpo_service.search.strategies.base import Judgement, Step, StudyView


class NoPruning:
    """Trials end one after the other in the order in which they began."""

    def propose(self, view: StudyView) -> Step:
        """The baseline, else the oldest paused trial, else a start, else the end."""
        return ranking.first_duties(view) or ranking.next_in_line(view) or ranking.start(view) or ranking.conclude(view)

    def judge(self, view: StudyView, trial_number: int) -> Judgement:
        """Always pause."""
        rung = view.trials[trial_number].rung
        return Judgement(verdict="pause", reason=f"evaluated at {rung} examples; every trial goes to its end")
