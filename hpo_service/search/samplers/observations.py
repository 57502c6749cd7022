"""What a sampler of Optuna is told about trials.

They see positions (see `spec.space.dimensions`), which its distributions can describe exactly.

Its samplers learn from finished trials only. TPE reads rungs: it is shown a paused trial as pruned at its last rung.
The Gaussian process and the genetic algorithm read one number of completed trials: they are shown every trial with a
loss as complete, at the loss at which it is expected to end.
"""

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from datetime import UTC, datetime
from math import isfinite
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo_service.search.samplers.expectations import is_lost
from hpo_service.search.strategies.base import StudyView, TrialView
from hpo_service.spec.space import Dimension, SearchSpace

Forms = Mapping[str, tuple[Dimension, BaseDistribution]]
"""By sampled name: its form, and the distribution of its positions."""

_NAME = "view"
_MEMO = "by_rungs"
_NO_TIME = datetime(2000, 1, 1, tzinfo=UTC)


class _Observation(FrozenTrial):
    """The storage copies every trial it is given, deeply; its contents are shared here because nothing writes to them.

    Deep copies were most of the time that a proposal took.
    """

    def __deepcopy__(self, _memo: dict[int, Any]) -> "_Observation":
        return copy(self)


class _Shelf(InMemoryStorage):
    """Takes many trials at once, and as they are: making each anew was most of the time of a proposal."""

    def put(self, study_id: int, observations: Iterable[FrozenTrial]) -> None:
        """Into a study without trials."""
        numbered = [_numbered(one, number) for number, one in enumerate(observations)]
        self._studies[study_id].trials = numbered
        self._trial_id_to_study_id_and_number = {number: (study_id, number) for number in range(len(numbered))}
        self._max_trial_id = len(numbered) - 1


def _numbered(observation: FrozenTrial, number: int) -> FrozenTrial:
    if observation.number == number:
        return observation
    moved = copy(observation)
    moved.number = moved._trial_id = number
    return moved


def study_by_rungs(space: SearchSpace, view: StudyView, sampler: BaseSampler) -> optuna.Study:
    """A throw-away study in memory with every trial that says something, as today's space has its positions.

    A trial that runs out of memory or diverges is shown as pruned without a value, which ranks last.
    """
    storage = _Shelf()
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], _NAME)
    storage.put(study_id, observations_by_rungs(space, view))
    return optuna.load_study(study_name=_NAME, storage=storage, sampler=sampler)


def observations_by_rungs(space: SearchSpace, view: StudyView) -> list[FrozenTrial]:
    """What `study_by_rungs` shows of the trials, in their order. Nobody may change them."""
    forms = _dimensions(space)
    found = [_remembered(space, view, trial, forms) for trial in view.trials]
    return [one for one in found if one is not None]


def common_dimensions(observations: Iterable[FrozenTrial]) -> dict[str, BaseDistribution]:
    """The parameters that all finished ones have, by name: what Optuna works out by looking at every pair."""
    finished = [one for one in observations if one.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    if not finished:
        return {}
    names = set(finished[0].distributions).intersection(*(one.distributions for one in finished))
    return {name: finished[0].distributions[name] for name in sorted(names)}


def _dimensions(space: SearchSpace) -> Forms:
    found = {name: space.dimension(name) for name in space.dimensions}
    return {name: (form, form.positions()) for name, form in found.items()}


def _remembered(space: SearchSpace, view: StudyView, trial: TrialView, forms: Forms) -> FrozenTrial | None:
    """The same view of a trial is shown the same as long as the space does not change."""
    if trial.baseline:
        return _by_rungs(view, trial, forms)
    known = trial.memo.get(_MEMO)
    if known is None or known[0] is not space:
        known = trial.memo[_MEMO] = (space, _by_rungs(view, trial, forms))
    observation: FrozenTrial | None = known[1]
    return observation


def study_by_ends(
    space: SearchSpace,
    view: StudyView,
    sampler: BaseSampler,
    ends: Mapping[int, float],
    attributes: Callable[[int], dict[str, Any]] = lambda _: {},
) -> optuna.Study:
    """The same with one number a trial: complete at its expected end, which `ends` has, running before its first loss.

    `attributes` answers the system attributes of the n-th complete trial, by number.
    """
    forms = _dimensions(space)
    observations = []
    for index, number in enumerate(sorted(ends)):
        trial, values = view.trials[number], {view.trials[number].rung: ends[number]}
        observations.append(_observation(TrialState.COMPLETE, trial, forms, values, attributes(index)))
    unknown = (trial for trial in view.standing("running", "paused") if not trial.losses)
    observations += [_observation(TrialState.RUNNING, trial, forms, {}) for trial in unknown]
    return _study(observations, sampler)


def _study(observations: Iterable[FrozenTrial], sampler: BaseSampler) -> optuna.Study:
    storage = InMemoryStorage()
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], _NAME)
    for observation in observations:
        storage.create_new_trial(study_id, observation)
    return optuna.load_study(study_name=_NAME, storage=storage, sampler=sampler)


def _by_rungs(view: StudyView, trial: TrialView, forms: Forms) -> FrozenTrial | None:
    if is_lost(trial):
        return _observation(TrialState.PRUNED, trial, forms, {})
    if trial.standing in ("waiting", "failed"):
        return None
    losses = _earned_losses(view, trial) if trial.baseline else dict(trial.losses)
    if not losses:
        return _observation(TrialState.RUNNING, trial, forms, {})
    complete = trial.standing == "complete" and max(losses) == trial.rung
    return _observation(TrialState.COMPLETE if complete else TrialState.PRUNED, trial, forms, losses)


def _observation(
    state: TrialState,
    trial: TrialView,
    forms: Forms,
    losses: dict[int, float],
    attributes: dict[str, Any] | None = None,
) -> FrozenTrial:
    known = {name: value for name, value in trial.sampled.items() if name in forms}
    finite = {rung: loss for rung, loss in losses.items() if isfinite(loss)}
    return _Observation(
        number=trial.number,
        trial_id=trial.number,
        state=state,
        value=losses[max(losses)] if state is TrialState.COMPLETE else None,
        datetime_start=_NO_TIME,
        datetime_complete=None if state is TrialState.RUNNING else _NO_TIME,
        params={name: forms[name][0].position(value) for name, value in known.items()},
        distributions={name: forms[name][1] for name in known},
        user_attrs={},
        system_attrs=attributes or {},
        intermediate_values=finite,
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
