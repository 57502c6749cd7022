"""Propose the next assignment: a fresh Optuna sampler on a throw-away study made from the view.

Nothing is remembered between calls, so a proposal depends on the view alone.
"""

import random
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import partial
from hashlib import sha256
from itertools import chain, islice
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import Trial, TrialState

from hpo_service.observations import study_from
from hpo_service.search_space import Assignment, Infeasible, SearchSpace
from hpo_service.strategies.base import StudyView

SamplerName = Literal["tpe", "random"]
_Suggest = Callable[[str, BaseDistribution], Any]

MAX_ASKS = 50
MAX_DRAWS = 2000
STARTUP_TRIALS = 8
_ASKS_FOR_SOMETHING_NEW = 10

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def propose_assignment(
    space: SearchSpace, view: StudyView, sampler: SamplerName, fixed: Mapping[str, Any]
) -> tuple[Assignment, int]:
    """The next assignment, and how many points were thrown away because they cannot be trained or were tried before.

    `fixed` holds coded values that are not sampled (an enqueued point). A point that was tried before is proposed only
    if nothing new is found soon: training it again would give the same losses.

    Raises:
        Infeasible: no point that can be trained was found.
    """
    digest = sha256(f"{view.seed}:{view.decision_number}".encode()).digest()
    asks = islice(_asks(space, view, _sampler(space, sampler, digest), fixed), MAX_ASKS)
    draws = islice(_draws(space, digest, fixed), MAX_DRAWS)
    tried = set() if fixed else {_key(trial.parameters) for trial in view.trials if trial.parameters}
    repeated: Assignment | None = None
    obstacle = ""
    for count, candidate in enumerate(chain(asks, draws)):
        if isinstance(candidate, str):
            obstacle = candidate
        elif _key(candidate.parameters.model_dump()) not in tried:
            return candidate, count
        else:
            repeated = repeated or candidate
        if repeated is not None and count >= _ASKS_FOR_SOMETHING_NEW:
            return repeated, count
    raise Infeasible(f"none of {MAX_ASKS + MAX_DRAWS} points could be trained; the last one: {obstacle}")


def _sampler(space: SearchSpace, name: SamplerName, digest: bytes) -> BaseSampler:
    seed = int.from_bytes(digest[:4], "big")
    if name == "random":
        return RandomSampler(seed=seed)
    return TPESampler(
        seed=seed,
        n_startup_trials=STARTUP_TRIALS,
        multivariate=True,
        group=space.conditional,
        constant_liar=True,
    )


def _asks(
    space: SearchSpace, view: StudyView, sampler: BaseSampler, fixed: Mapping[str, Any]
) -> Iterator[Assignment | str]:
    """Points that the sampler proposes; a sentence in place of one that cannot be trained."""
    study = study_from(space, view, sampler)
    while True:
        trial = study.ask()
        yield _feasible(space, fixed, partial(_suggest, trial))
        study.tell(trial, state=TrialState.FAIL)


def _draws(space: SearchSpace, digest: bytes, fixed: Mapping[str, Any]) -> Iterator[Assignment | str]:
    """Points drawn evenly from the whole space."""
    source = random.Random(digest)  # noqa: S311
    while True:
        yield _feasible(space, fixed, lambda name, _distribution: space.spread(name, source.random()))


def _feasible(space: SearchSpace, fixed: Mapping[str, Any], suggest: _Suggest) -> Assignment | str:
    try:
        assignment = space.sample(
            lambda name, distribution: fixed[name] if name in fixed else suggest(name, distribution)
        )
    except Infeasible as error:
        return error.detail
    return space.feasible(assignment) or assignment


def _suggest(trial: Trial, name: str, distribution: BaseDistribution) -> Any:  # noqa: ANN401
    match distribution:
        case FloatDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_float(name, low, high, log=log, step=step)
        case IntDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_int(name, low, high, log=log, step=step)
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(name, choices)
    raise TypeError(f"no parameter has a {type(distribution).__name__}")


def _key(parameters: Mapping[str, Any]) -> Hashable:
    return tuple(sorted(parameters.items()))
