"""What the sampler is told about trials, in Optuna's terms.

Optuna's samplers learn from finished trials only, so a paused trial is shown as pruned at its last rung. A trial that
runs out of memory or diverges is shown as pruned without a value, which ranks last.
"""

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo_service.search_space import SearchSpace
from hpo_service.strategies.base import StudyView, TrialView
from trainer.spec import Outcome

_FACTS_ABOUT_THE_TRIAL = (Outcome.OOM, Outcome.DIVERGED)


def observations(space: SearchSpace, view: StudyView) -> list[FrozenTrial]:
    """Every trial that says something, with the distributions of today's space."""
    distributions = space.distributions()
    shown = (_observation(view, trial, distributions) for trial in view.trials)
    return [trial for trial in shown if trial is not None]


def _observation(view: StudyView, trial: TrialView, distributions: dict[str, BaseDistribution]) -> FrozenTrial | None:
    params = {name: value for name, value in trial.sampled.items() if name in distributions}
    known = {name: distributions[name] for name in params}
    if trial.standing == "waiting":
        return None
    if trial.standing == "failed":
        told = trial.outcome in _FACTS_ABOUT_THE_TRIAL
        return create_trial(state=TrialState.PRUNED, params=params, distributions=known) if told else None
    losses = _earned_losses(view, trial) if trial.baseline else dict(trial.losses)
    if not losses:
        return create_trial(state=TrialState.RUNNING, params=params, distributions=known)
    last = max(losses)
    complete = trial.standing == "complete" and last == trial.rung
    return create_trial(
        state=TrialState.COMPLETE if complete else TrialState.PRUNED,
        value=losses[last] if complete else None,
        params=params,
        distributions=known,
        intermediate_values=losses,
    )


def _earned_losses(view: StudyView, baseline: TrialView) -> dict[int, float]:
    """The baseline's losses up to the first rung that it would not have left on its own merit.

    It is trained to its end whatever it is worth. Optuna ranks a trial that went further above all others, so with all
    of its losses it would pass for the best trial of the study.
    """
    earned: dict[int, float] = {}
    for rung in sorted(baseline.losses):
        peers = [
            trial.losses[rung] for trial in view.trials if rung in trial.losses and trial.number != baseline.number
        ]
        if earned and not peers:
            break
        earned[rung] = baseline.losses[rung]
        if 2 * sum(loss < earned[rung] for loss in peers) >= max(1, len(peers)):
            break
    return earned
