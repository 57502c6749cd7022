"""Who is confirmed: the baseline, and the searched trials that are expected to end best. Pure."""

from collections.abc import Sequence
from math import exp, isfinite

import numpy as np

from hpo_service.search.strategies.base import TrialView
from hpo_service.search.strategies.freeze_thaw import curves
from hpo_service.search.strategies.freeze_thaw.settings import FreezeThawSettings
from hpo_service.spec import Candidate, ResolvedStudy
from trainer.spec import Parameters


def candidates(resolved: ResolvedStudy, trials: Sequence[TrialView], top: int) -> tuple[Candidate, ...]:
    """The `top` searched trials, best first, then the baseline; none without a searched one.

    Of trials with the same parameters one is enough. A trial that failed is not trained again, but the baseline is,
    unless it was its own fault.
    """
    baseline = next((_candidate(resolved, trial) for trial in trials if trial.baseline and _may_end(trial)), None)
    chosen: list[Candidate] = []
    for trial in _by_expected_end(trials, resolved.ladder):
        if trial.baseline or trial.standing == "failed":
            continue
        one = _candidate(resolved, trial)
        if all(one.parameters != other.parameters for other in (*chosen, baseline) if other is not None):
            chosen.append(one)
        if len(chosen) == top:
            break
    if not chosen:
        return ()
    return (*chosen, *([] if baseline is None else [baseline]))


def _by_expected_end(trials: Sequence[TrialView], ladder: Sequence[int]) -> list[TrialView]:
    """Those with a loss, by the loss that they are expected to have at their end.

    That is its last loss, taken along the curve that all trials of the study have in common, as in the search's model
    (see `freeze_thaw.curves`). A trial at a low rung can so be ahead of one that was trained to its end.
    """
    measured = [trial for trial in trials if _is_finite(trial)]
    if not measured:
        return []
    known = curves.read(measured, ladder, FreezeThawSettings().squash)
    last = np.zeros(len(measured), dtype=np.intp)
    last[known.rows] = np.arange(len(known.rows))
    ends = np.array([trial.ladder[-1] for trial in measured], dtype=np.float64)
    predicted = known.log_loss(known.values[last], ends)
    expected = {
        trial.number: min(trial.losses[trial.rung], exp(log_loss))
        for trial, log_loss in zip(measured, predicted.tolist(), strict=True)
    }
    return sorted(measured, key=lambda trial: (expected[trial.number], trial.number))


def _candidate(resolved: ResolvedStudy, trial: TrialView) -> Candidate:
    parameters = Parameters.model_validate(trial.parameters)
    return Candidate(
        trial_number=trial.number,
        baseline=trial.baseline,
        sampled=dict(trial.sampled),
        parameters=parameters,
        loss=trial.losses[trial.rung] if _is_finite(trial) else None,
        examples=trial.rung,
        run_examples=resolved.trial_rungs(parameters)[-1],
    )


def _may_end(trial: TrialView) -> bool:
    """Whether it began and did not fail by itself."""
    return bool(trial.parameters) and not (trial.outcome is not None and trial.outcome.about_the_trial)


def _is_finite(trial: TrialView) -> bool:
    return bool(trial.losses) and all(isfinite(loss) for loss in trial.losses.values())
