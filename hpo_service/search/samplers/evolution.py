"""CMA-ES on the numeric parameters that every trial uses; the others are drawn evenly.

Optuna's sampler keeps its distribution, pickled, in the trials of a study. Here it is a replay: all trials with a loss,
by number and in generations, are told to a fresh optimizer, so that a proposal follows from the view alone.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from random import Random
from typing import Any

import numpy as np
from cmaes import CMA

from hpo_service.search.samplers.expectations import expected_ends
from hpo_service.search.strategies.base import StudyView
from hpo_service.spec.space import Categories, Dimension, SearchSpace, Suggest

#: of the range of a parameter, in the first generation
_DEVIATION = 1 / 6
_MIDDLE = 0.5


def evolved_names(space: SearchSpace) -> tuple[str, ...]:
    """The parameters that CMA-ES can move."""
    return tuple(
        name
        for name in space.dimensions
        if not isinstance(form := space.forms[name], Categories) and not form.when and _varies(form)
    )


def evolved(space: SearchSpace, view: StudyView, seed: int) -> Iterator[Suggest]:
    """Points of the current generation."""
    names, source = evolved_names(space), Random(seed)  # noqa: S311
    optimizer = _replayed(space, view, names, seed) if names else None
    while True:
        point = [] if optimizer is None else optimizer.ask().tolist()
        yield partial(_suggest, space, dict(zip(names, point, strict=True)), source)


def _replayed(space: SearchSpace, view: StudyView, names: tuple[str, ...], seed: int) -> CMA:
    bounds = np.tile([0.0, 1.0], (len(names), 1))
    optimizer = CMA(np.full(len(names), _MIDDLE), _DEVIATION, bounds=bounds, seed=seed)
    told = [
        (np.array([_share(space, name, view.trials[number].sampled) for name in names]), value)
        for number, value in sorted(expected_ends(view).items())
        if not view.trials[number].baseline
    ]
    size = optimizer.population_size
    for start in range(0, len(told) - size + 1, size):
        optimizer.tell(told[start : start + size])
    return optimizer


def _suggest(space: SearchSpace, shares: Mapping[str, float], source: Random, name: str) -> Any:  # noqa: ANN401
    return space.spread(name, shares[name] if name in shares else source.random())


def _share(space: SearchSpace, name: str, sampled: Mapping[str, Any]) -> float:
    return space.dimension(name).share(sampled[name])


def _varies(form: object) -> bool:
    return isinstance(form, Dimension) and form.levels() != 1
