"""One number a trial, for samplers that cannot read curves: the loss at which it is expected to end."""

from collections.abc import Iterable
from itertools import pairwise
from math import isfinite
from statistics import median

from hpo_service.search.strategies.base import StudyView, TrialView


def expected_ends(view: StudyView) -> dict[int, float]:
    """By trial number: the last loss, moved to the trial's end by what the trials that went on gained from there.

    Last losses alone would rank trials by how far they came: a paused one looks bad only because it is not finished.
    A trial that ran out of memory or diverged has the worst number of the others; before there are others, none.
    """
    gains = _gains(view.trials)
    found = {trial.number: _expected_end(trial, gains) for trial in view.trials if _is_measured(trial)}
    worst = max(found.values(), default=None)
    if worst is not None:
        found |= {trial.number: worst for trial in view.trials if is_lost(trial)}
    return found


def is_lost(trial: TrialView) -> bool:
    """Whether its configuration failed, which says something about configurations nearby."""
    if trial.standing == "failed":
        return trial.outcome is not None and trial.outcome.about_the_trial
    return bool(trial.losses) and not isfinite(trial.losses[trial.rung])


def _is_measured(trial: TrialView) -> bool:
    return bool(trial.losses) and trial.standing != "failed" and isfinite(trial.losses[trial.rung])


def _gains(trials: Iterable[TrialView]) -> dict[tuple[int, int], float]:
    """Median change of the loss from a rung to the next, over the trials that have both."""
    changes: dict[tuple[int, int], list[float]] = {}
    for trial in trials:
        for rung, following in pairwise(sorted(trial.losses)):
            change = trial.losses[following] - trial.losses[rung]
            if isfinite(change):
                changes.setdefault((rung, following), []).append(change)
    return {step: median(found) for step, found in changes.items()}


def _expected_end(trial: TrialView, gains: dict[tuple[int, int], float]) -> float:
    ahead = (trial.rung, *(rung for rung in trial.ladder if rung > trial.rung))
    return trial.losses[trial.rung] + sum(gains.get(step, 0.0) for step in pairwise(ahead))
