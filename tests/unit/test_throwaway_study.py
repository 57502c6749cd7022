"""A study for one proposal tells a sampler the same as Optuna's own `add_trials`, without its copies."""

import random

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo_service.optuna_storage.throwaway import throwaway_study

SPACE: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(1e-6, 1e-2, log=True),
    "targets": CategoricalDistribution(("attention", "all")),
}


def observed(count: int) -> list[FrozenTrial]:
    rng = random.Random(1)
    trials = []
    for number in range(count):
        state = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)[number % 3]
        loss = rng.random()
        trial = create_trial(
            state=state,
            value=loss if state is TrialState.COMPLETE else None,
            params={"rate": rng.uniform(1e-6, 1e-2), "targets": rng.choice(("attention", "all"))},
            distributions=SPACE,
            intermediate_values={100: loss},
        )
        trial.number = trial._trial_id = number
        trials.append(trial)
    return trials


def proposals(study: Study) -> list[dict[str, object]]:
    points = []
    for _ in range(3):
        trial = study.ask(SPACE)
        points.append(trial.params)
        study.tell(trial, state=TrialState.FAIL)
    return points


def test_the_sampler_learns_the_same() -> None:
    copied = optuna.create_study(sampler=TPESampler(seed=3))
    copied.add_trials(observed(40))
    assert proposals(throwaway_study(observed(40), TPESampler(seed=3))) == proposals(copied)


def test_what_is_asked_for_leaves_the_given_list_alone() -> None:
    trials = observed(6)
    study = throwaway_study(trials, TPESampler(seed=3))
    assert study.ask(SPACE).number == 6
    assert len(trials) == 6
    assert study.best_trial == min(
        (trial for trial in trials if trial.value is not None), key=lambda trial: trial.value or 0
    )
