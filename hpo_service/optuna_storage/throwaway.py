"""A study for one proposal: the sampler reads the very trials it is given."""

import optuna
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from hpo_service.optuna_storage.load import StudyFacts
from hpo_service.optuna_storage.memory import Memory

_STUDY_ID = 0


def throwaway_study(trials: list[FrozenTrial], sampler: BaseSampler) -> Study:
    """A study to be minimized that holds `trials`, which are neither copied nor checked; it may ask for more.

    `Study.add_trials` copies deeply: with 500 trials that takes several times as long as TPE itself. The trials must
    be numbered from 0 in order, and `trial_id` must be the number.
    """
    memory = Memory()
    facts = StudyFacts(name="throwaway", directions=[StudyDirection.MINIMIZE], user_attrs={}, system_attrs={})
    memory._adopt_study(_STUDY_ID, facts, list(trials))
    memory._max_trial_id = len(trials) - 1
    return optuna.load_study(study_name=facts.name, storage=memory, sampler=sampler)
