"""The one module that touches private parts of Optuna's InMemoryStorage; the contract tests guard it."""

from collections.abc import Sequence
from datetime import datetime
from uuid import uuid4

from optuna.distributions import check_distribution_compatibility
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import InMemoryStorage
from optuna.storages._base import DEFAULT_STUDY_NAME_PREFIX
from optuna.storages._in_memory import _StudyInfo
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo_service.storage.optuna.codec import plain, to_local
from hpo_service.storage.optuna.load import StudyFacts


class Memory(InMemoryStorage):
    """An InMemoryStorage that is told ids and times, takes over studies that exist, and notes which trials change."""

    def __init__(self) -> None:
        super().__init__()
        self._changed: set[int] = set()

    def take_changed(self) -> set[int]:
        """Ids of the trials that were made or changed since the last call."""
        with self._lock:
            changed, self._changed = self._changed, set()
        return changed

    def trial_at(self, study_id: int, number: int) -> FrozenTrial:
        """Not a copy, so not to be changed. Raise KeyError for an unknown study, IndexError for an unknown number."""
        with self._lock:
            return self._studies[study_id].trials[number]

    def count_trials(self, study_id: int) -> int:
        """All trials of the study. Raise KeyError for an unknown one."""
        with self._lock:
            return len(self._studies[study_id].trials)

    def _set_trial(self, trial_id: int, trial: FrozenTrial) -> None:
        super()._set_trial(trial_id, trial)
        self._changed.add(trial_id)

    def _add_study(self, study_id: int, directions: Sequence[StudyDirection], name: str | None) -> str:
        if name is None:
            name = f"{DEFAULT_STUDY_NAME_PREFIX}{uuid4()}"
        if name in self._study_name_to_id:
            raise DuplicatedStudyError
        self._studies[study_id] = _StudyInfo(name, list(directions))
        self._study_name_to_id[name] = study_id
        self._prev_waiting_trial_number[study_id] = 0
        return name

    def _adopt_study(self, study_id: int, facts: StudyFacts, trials: list[FrozenTrial]) -> None:
        self._add_study(study_id, facts.directions, facts.name)
        study = self._studies[study_id]
        study.user_attrs, study.system_attrs, study.trials = facts.user_attrs, facts.system_attrs, trials
        for number, trial in enumerate(trials):
            if trial.number != number:
                raise ValueError(f"trial {trial._trial_id} of Optuna study {study_id} is {trial.number}, not {number}.")
            self._trial_id_to_study_id_and_number[trial._trial_id] = (study_id, number)
            study.param_distribution.update(trial.distributions)
            self._update_cache(trial._trial_id, study_id)

    def _require_compatible(self, study_id: int, template: FrozenTrial) -> None:
        """RDBStorage checks a template's distributions, InMemoryStorage does not."""
        self._check_study_id(study_id)
        known = self._studies[study_id].param_distribution
        for name in known.keys() & template.distributions.keys():
            check_distribution_compatibility(known[name], template.distributions[name])

    def _add_trial(self, trial_id: int, study_id: int, template: FrozenTrial | None) -> FrozenTrial:
        self._max_trial_id = trial_id - 1
        InMemoryStorage.create_new_trial(self, study_id, template)
        trial = self._get_trial(trial_id)
        trial.datetime_start = trial.datetime_start and to_local(trial.datetime_start)
        trial.datetime_complete = trial.datetime_complete and to_local(trial.datetime_complete)
        trial.user_attrs, trial.system_attrs = plain(trial.user_attrs), plain(trial.system_attrs)
        self._studies[study_id].param_distribution.update(trial.distributions)
        self._changed.add(trial_id)
        return trial

    def _stamp(self, trial: FrozenTrial, now: datetime) -> None:
        """Put `now` in place of this process's clock, in a trial that no reader has seen yet."""
        if trial.state.is_finished():
            trial.datetime_complete = now
        elif trial.state is TrialState.RUNNING:
            trial.datetime_start = now

    def _study_id_of(self, trial_id: int) -> int:
        return self._trial_id_to_study_id_and_number[trial_id][0]

    def _trial_ids_of(self, study_id: int) -> set[int]:
        self._check_study_id(study_id)
        return {trial._trial_id for trial in self._studies[study_id].trials}
