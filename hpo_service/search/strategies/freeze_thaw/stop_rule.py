"""Stopping on evidence: the study ends when no next step is expected to gain much, several decisions in a row.

Only decisions by expected improvement weigh all options; the other rules leave the count as it is. The count lives in
the study's memory, so a restart does not forget it.
"""

from dataclasses import replace

from hpo_service.search.strategies import ranking
from hpo_service.search.strategies.base import Advance, Finished, Start, Step, StudyView, Wait
from hpo_service.spec.stop_when import StopWhen

_COUNT = "calm_decisions"


def stopped(step: Step, view: StudyView, rule: StopWhen) -> Step:
    """The step with the count in its memory, or what ends the search in its place."""
    if not isinstance(step, Advance | Start):
        return step
    count = int(view.memory.get(_COUNT, 0))
    gain = _largest_gain(step)
    if gain is not None:
        count = count + 1 if gain < rule.regret_below else 0
    if gain is not None and count >= rule.patience:
        return _ending(step, view, rule, gain)
    return replace(step, memory={**(view.memory if step.memory is None else step.memory), _COUNT: count})


def _ending(step: Step, view: StudyView, rule: StopWhen, gain: float) -> Step:
    if view.standing("running"):
        return Wait()
    if any(not trial.baseline for trial in view.standing("complete")):
        return Finished(
            reason=f"no next step is expected to gain more than {gain:.2%} of the best loss, and less than "
            f"{rule.regret_below:.2%} is expected for {rule.patience} decisions in a row (search.stop_when)"
        )
    instead = ranking.conclude(view)
    return step if isinstance(instead, Finished) else instead


def _largest_gain(step: Advance | Start) -> float | None:
    """The largest expected improvement of all options that were weighed, as a share of the best loss."""
    largest, best = step.numbers.get("largest_expected_improvement"), step.numbers.get("best_loss")
    if not isinstance(largest, float) or not isinstance(best, float):
        return None
    return largest / best
