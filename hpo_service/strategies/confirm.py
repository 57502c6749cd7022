"""Confirmation: the best trials and the baseline race at full budget, with new seeds."""

from dataclasses import dataclass

from hpo_service.confirmation.race import Course, Round, course, most_runs
from hpo_service.confirmation.statistics import RunResult
from hpo_service.search_space import Assignment
from hpo_service.spec.confirmation import ConfirmationPlan
from hpo_service.strategies.base import Finished, Judgement, Run, Start, Step, StudyView, TrialView, Wait

Runs = dict[tuple[int, int], TrialView]


@dataclass(frozen=True)
class Confirm:
    """Runs the plan's race. Every trial is a run: it goes to its end in one slice and is never judged before."""

    plan: ConfirmationPlan

    def propose(self, view: StudyView) -> Step:
        """The next run of the current round; none before the round is through."""
        runs = {(trial.run.candidate, trial.run.seed): trial for trial in view.trials if trial.run is not None}
        state = course(self.plan, {key: _result(trial) for key, trial in runs.items() if _ended(trial)})
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


def _ended(trial: TrialView) -> bool:
    return trial.standing in ("complete", "pruned", "failed")


def _result(trial: TrialView) -> RunResult | None:
    if trial.run is None or trial.standing != "complete":
        return None
    return RunResult(
        candidate=trial.run.candidate,
        seed=trial.run.seed,
        loss=trial.losses[trial.rung],
        folds=trial.fold_losses.get(trial.rung, ()),
    )
