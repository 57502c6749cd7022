"""What the sampler is told about trials, in Optuna's terms.

Optuna's samplers learn from finished trials only, so a paused trial is shown as pruned at its last rung. A trial that
runs out of memory or diverges is shown as pruned without a value, which ranks last.
"""

from copy import copy
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo_service.search_space import SearchSpace
from hpo_service.strategies.base import StudyView, TrialView
from trainer.spec import Outcome

_FACTS_ABOUT_THE_TRIAL = (Outcome.OOM, Outcome.DIVERGED)


_NAME = "view"
_NO_TIME = datetime(2000, 1, 1, tzinfo=UTC)


class _Observation(FrozenTrial):
    """The storage copies every trial it is given, deeply; its contents are shared here because nothing writes to them.

    Deep copies were most of the time that a proposal took.
    """

    def __deepcopy__(self, _memo: dict[int, Any]) -> "_Observation":
        return copy(self)


def study_from(space: SearchSpace, view: StudyView, sampler: BaseSampler) -> optuna.Study:
    """A throw-away study in memory with every trial that says something, in the distributions of today's space."""
    distributions = space.distributions()
    storage = InMemoryStorage()
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], _NAME)
    for trial in view.trials:
        observation = _observation(view, trial, distributions)
        if observation is not None:
            storage.create_new_trial(study_id, observation)
    return optuna.load_study(study_name=_NAME, storage=storage, sampler=sampler)


def _observation(view: StudyView, trial: TrialView, distributions: dict[str, BaseDistribution]) -> FrozenTrial | None:
    if trial.standing == "waiting" or (trial.standing == "failed" and trial.outcome not in _FACTS_ABOUT_THE_TRIAL):
        return None
    losses = _earned_losses(view, trial) if trial.baseline else dict(trial.losses)
    if trial.standing == "failed":
        return _trial(TrialState.PRUNED, trial, distributions, {})
    if not losses:
        return _trial(TrialState.RUNNING, trial, distributions, {})
    complete = trial.standing == "complete" and max(losses) == trial.rung
    return _trial(TrialState.COMPLETE if complete else TrialState.PRUNED, trial, distributions, losses)


def _trial(
    state: TrialState, trial: TrialView, distributions: dict[str, BaseDistribution], losses: dict[int, float]
) -> FrozenTrial:
    params = {name: value for name, value in trial.sampled.items() if name in distributions}
    return _Observation(
        number=trial.number,
        trial_id=trial.number,
        state=state,
        value=losses[max(losses)] if state is TrialState.COMPLETE else None,
        datetime_start=_NO_TIME,
        datetime_complete=None if state is TrialState.RUNNING else _NO_TIME,
        params=params,
        distributions={name: distributions[name] for name in params},
        user_attrs={},
        system_attrs={},
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
