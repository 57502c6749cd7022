"""Confirmation: the best trials and the baseline race at full budget, with new seeds."""

from dataclasses import asdict, dataclass

from hpo_service.search.confirmation.race import Course, Round, course, most_runs
from hpo_service.search.confirmation.runs import RunFacts, run_facts
from hpo_service.search.strategies.base import Finished, Judgement, Run, Start, Step, StudyView, Wait
from hpo_service.spec.confirmation import ConfirmationPlan
from hpo_service.spec.space import Assignment

Runs = dict[tuple[int, int], RunFacts]


@dataclass(frozen=True)
class Confirm:
    """Runs the plan's race. Every trial is a run: it goes to its end in one slice and is never judged before."""

    plan: ConfirmationPlan

    def propose(self, view: StudyView) -> Step:
        """The next run of the current round; none before the round is through."""
        found = [
            run_facts(trial.number, trial.standing, asdict(trial.run), trial.losses, trial.fold_losses)
            for trial in view.trials
            if trial.run is not None
        ]
        runs = {(run.candidate, run.seed): run for run in found}
        state = course(self.plan, {key: run.result for key, run in runs.items() if run.counts})
        if state.ended is not None:
            return Finished(reason=state.ended)
        current = state.rounds[-1]
        missing = next((number for number in current.field if (number, current.seed) not in runs), None)
        return Wait() if missing is None else self._start(missing, state, current, runs)

    def judge(self, view: StudyView, trial_number: int) -> Judgement:
        """A run has one rung, its end."""
        return Judgement(verdict="pause", reason="the run has not reached its end")

    def _start(self, number: int, state: Course, current: Round, runs: Runs) -> Start:
        candidate = self.plan.candidate(number)
        name = "the baseline" if candidate.baseline else f"trial {number}"
        return Start(
            trial_number=None,
            reason=f"{name} with seed {len(state.rounds)} of {len(self.plan.seeds)}",
            assignment=Assignment(sampled=dict(candidate.sampled), parameters=candidate.parameters),
            run=Run(candidate=number, seed=current.seed),
            numbers={
                "round": len(state.rounds),
                "candidates": len(current.field),
                "runs": len(runs) + 1,
                "most_runs": most_runs(self.plan),
            },
        )
