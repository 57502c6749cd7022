"""Asynchronous successive halving that promotes: every trial pauses at every rung, the best of a rung go on."""

from dataclasses import dataclass

from hpo_service.strategies import ranking
from hpo_service.strategies.base import Advance, Judgement, Step, StudyView


@dataclass(frozen=True)
class Asha:
    """One in `reduction_factor` trials of a rung advances; with fewer results than that, none does."""

    reduction_factor: int

    def propose(self, view: StudyView) -> Step:
        """The baseline, else a promotion as high as possible, else a start, else the way to the end."""
        return ranking.first_duties(view) or self._promotion(view) or ranking.start(view) or ranking.conclude(view)

    def judge(self, view: StudyView, trial_number: int) -> Judgement:
        """Always pause: whether a trial advances may change with every later result."""
        trial = view.trials[trial_number]
        ranked = ranking.at_rung(view, trial.rung)
        return Judgement(verdict="pause", reason=self._standing(ranked.index(trial) + 1, len(ranked), trial.rung))

    def _promotion(self, view: StudyView) -> Advance | None:
        paused = {trial.number: trial for trial in view.standing("paused") if trial.losses}
        for rung in sorted({trial.rung for trial in paused.values()}, reverse=True):
            ranked = ranking.at_rung(view, rung)
            for rank, trial in enumerate(ranked[: len(ranked) // self.reduction_factor], start=1):
                if trial.number in paused and trial.rung == rung:
                    step = ranking.advance(trial, self._standing(rank, len(ranked), rung))
                    if step is not None:
                        return step
        return None

    def _standing(self, rank: int, count: int, rung: int) -> str:
        advancing = count // self.reduction_factor
        rule = (
            f"the best {advancing} advance" if advancing else f"none advances before {self.reduction_factor} are there"
        )
        return f"rank {rank} of {count} at {rung} examples; {rule}"
