"""Samplers by name: each an endless stream of points, made anew from the view for every proposal."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import count
from random import Random
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import Trial, TrialState
from scipy.stats import qmc

from hpo_service.search.samplers.evolution import evolved
from hpo_service.search.samplers.expectations import expected_ends
from hpo_service.search.samplers.observations import (
    common_dimensions,
    observations_by_rungs,
    study_by_ends,
    study_by_rungs,
)
from hpo_service.search.strategies.base import StudyView
from hpo_service.spec import SamplerName
from hpo_service.spec.sampler_support import used_sampler
from hpo_service.spec.space import SearchSpace, Suggest

STARTUP_TRIALS = 8
#: a generation is this share of max_trials, so that a study has several
_GENERATIONS = 6
_SMALLEST_GENERATION, _LARGEST_GENERATION = 4, 50
_SOBOL_BLOCK = 64
#: trials that a Gaussian process is told of: with 300 of them a proposal takes most of a second
_MOST_MODELLED = 300

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """`study` is the same for all proposals of a study, `proposal` is this one's own."""

    study: int
    proposal: int


def points(name: SamplerName, space: SearchSpace, view: StudyView, seeds: Seeds) -> Iterator[Suggest]:
    """Points as functions that answer a value for each name; the caller takes what it needs to find a good one."""
    seed = seeds.proposal
    match used_sampler(name, len(view.trials)):
        case "tpe":
            return _asked(space, study_by_rungs(space, view, _tpe(space, view, seed)))
        case "random":
            return _asked(space, study_by_rungs(space, view, RandomSampler(seed=seed)))
        case "gp":
            return _modelled(space, view, seed)
        case "nsgaii":
            return _genetic(space, view, seed)
        case "cmaes":
            return evolved(space, view, seed)
        case "qmc":
            return _sobol(space, view, seeds.study)


class _Dimensions(IntersectionSearchSpace):
    """Answers what is known already."""

    def __init__(self, found: dict[str, BaseDistribution]) -> None:
        super().__init__(include_pruned=True)
        self._found = found

    def calculate(self, study: optuna.Study, use_cache: bool = False) -> dict[str, BaseDistribution]:
        return dict(self._found)


def _tpe(space: SearchSpace, view: StudyView, seed: int) -> TPESampler:
    sampler = TPESampler(
        seed=seed, n_startup_trials=STARTUP_TRIALS, multivariate=True, group=space.conditional, constant_liar=True
    )
    if not space.conditional:
        sampler._search_space = _Dimensions(common_dimensions(observations_by_rungs(space, view)))
    return sampler


@lru_cache(maxsize=16)
def _sobol_block(dimensions: int, seed: int, index: int) -> list[list[float]]:
    engine = qmc.Sobol(dimensions, seed=seed)
    if index:
        engine.fast_forward(index * _SOBOL_BLOCK)
    points: list[list[float]] = engine.random(_SOBOL_BLOCK).tolist()
    return points


def drawn(space: SearchSpace, seed: bytes) -> Iterator[Suggest]:
    """Points drawn evenly from the whole space."""
    source = Random(seed)  # noqa: S311
    while True:
        yield lambda name: space.spread(name, source.random())


def _asked(space: SearchSpace, study: optuna.Study, refused_as: float | None = None) -> Iterator[Suggest]:
    """What a sampler of Optuna proposes in `study`, which holds positions.

    A point that is not taken failed, or has the value `refused_as`.
    """
    while True:
        trial = study.ask()
        yield partial(_suggest, space, trial)
        if refused_as is None:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, refused_as)


def _modelled(space: SearchSpace, view: StudyView, seed: int) -> Iterator[Suggest]:
    """A point that is not taken counts as bad as the worst trial: asked again, the model would propose it again."""
    sampler = GPSampler(seed=seed, n_startup_trials=STARTUP_TRIALS, warn_independent_sampling=False)
    ends = expected_ends(view)
    numbers = _told(ends) if len(ends) > _MOST_MODELLED else sorted(ends)
    worst = max(ends.values(), default=None)
    study = study_by_ends(space, view, sampler, {number: ends[number] for number in numbers})
    return _asked(space, study, refused_as=worst)


def _told(ends: dict[int, float]) -> list[int]:
    """The best trials and the newest others, half and half."""
    best = sorted(ends, key=lambda number: (ends[number], number))[: _MOST_MODELLED // 2]
    newest = sorted(set(ends) - set(best))[-(_MOST_MODELLED - len(best)) :]
    return sorted([*best, *newest])


def _genetic(space: SearchSpace, view: StudyView, seed: int) -> Iterator[Suggest]:
    """Optuna counts generations in attributes of the trials it asked for; here they follow from the trials' order.

    A trial belongs to a generation by its place among those with a loss, so trials that end out of turn or never do
    not hold up the next generation.
    """
    size = min(_LARGEST_GENERATION, max(_SMALLEST_GENERATION, view.max_trials // _GENERATIONS))
    sampler = NSGAIISampler(population_size=size, seed=seed)
    key = f"{NSGAIISampler.__name__}:generation"
    study = study_by_ends(space, view, sampler, expected_ends(view), lambda index: {key: index // size})
    return _asked(space, study)


def _sobol(space: SearchSpace, view: StudyView, seed: int) -> Iterator[Suggest]:
    """The scrambled Sobol sequence of the study, from the point whose turn it is.

    Unlike Optuna's sampler, which keeps its place in the study, it covers conditional parameters too. Points that were
    skipped for an earlier trial are met again and are known by then.
    """
    roster = view.roster
    baselines = sum(trial.standing != "waiting" for trial in roster.baselines())
    begun = len(roster) - len(roster.standing("waiting")) - baselines
    first, skip = divmod(begun, _SOBOL_BLOCK)
    for index in count(first):
        for point in _sobol_block(len(space.dimensions), seed, index)[skip if index == first else 0 :]:
            shares = dict(zip(space.dimensions, point, strict=True))
            yield partial(_at, space, shares)


def _at(space: SearchSpace, shares: dict[str, float], name: str) -> Any:  # noqa: ANN401
    return space.spread(name, shares[name])


def _suggest(space: SearchSpace, trial: Trial, name: str) -> Any:  # noqa: ANN401
    form = space.dimension(name)
    return form.at(_position(trial, name, form.positions()))


def _position(trial: Trial, name: str, distribution: BaseDistribution) -> Any:  # noqa: ANN401
    match distribution:
        case FloatDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_float(name, low, high, log=log, step=step)
        case IntDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_int(name, low, high, log=log, step=step)
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(name, choices)
    raise TypeError(f"no parameter has a {type(distribution).__name__}")
