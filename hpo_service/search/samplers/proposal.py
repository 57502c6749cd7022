"""The next assignment: the first point of a sampler that can be trained and is near no trial."""

from collections.abc import Iterator, Mapping
from hashlib import sha256
from itertools import chain, islice
from typing import Any

import numpy as np

from hpo_service.search.samplers.sources import Seeds, drawn, points
from hpo_service.search.strategies.base import StudyView
from hpo_service.search.strategies.nearness import Tried
from hpo_service.spec import SamplerName
from hpo_service.spec.sampler_support import used_sampler
from hpo_service.spec.space import Assignment, Infeasible, SearchSpace, Suggest

MAX_ASKS = 50
MAX_DRAWS = 2000
#: a point of a Gaussian process takes long
_FEWEST_ASKS = 5
_ASKS_FOR_SOMETHING_NEW = 10
_LEARNING: tuple[SamplerName, ...] = ("tpe", "gp", "cmaes", "nsgaii")


def propose_assignment(
    space: SearchSpace, view: StudyView, sampler: SamplerName, fixed: Mapping[str, Any] | None
) -> tuple[Assignment, int]:
    """The next assignment, and how many points were thrown away because they cannot be trained or are near a trial.

    `fixed` are the values of a point that somebody asked for, the others are sampled; it may be near a trial. Where
    a sampler that learns asks for what was tried, a point beside that is taken: where it asks for more is worth more
    than an even draw, and to ask again takes as long as the first time. Where there is none, any point is taken.

    Raises:
        Infeasible: no point that can be trained was found, with the fixed values if there are any.
        Exhausted: no point is left that is near no trial.
    """
    digest = sha256(f"{view.seed}:{view.decision_number}".encode()).digest()
    seeds = Seeds(study=view.seed, proposal=int.from_bytes(digest[:4], "big"))
    used = used_sampler(sampler, len(view.trials))
    asks, patience = _effort(used)
    suggests = islice(points(sampler, space, view, seeds), asks)
    if fixed is not None:
        return _with_fixed(space, fixed, chain(suggests, islice(drawn(space, digest), MAX_DRAWS)))
    tried, random = Tried(space, view), np.random.default_rng(list(digest))
    tried.require_room(random)
    near = refused = 0
    for candidate in _candidates(space, suggests, {}):
        if isinstance(candidate, Assignment):
            if tried.allows(candidate):
                return candidate, refused
            beside = tried.beside(candidate, random) if used in _LEARNING else None
            if beside is not None:
                return beside, refused
            near += 1
        refused += 1
        if near == patience:
            break
    found, impossible = tried.anywhere(random)
    return found, refused + impossible


def _with_fixed(space: SearchSpace, fixed: Mapping[str, Any], suggests: Iterator[Suggest]) -> tuple[Assignment, int]:
    obstacle, refused = "", 0
    for candidate in _candidates(space, suggests, fixed):
        if isinstance(candidate, Assignment):
            return candidate, refused
        obstacle, refused = candidate, refused + 1
    raise Infeasible(f"none of {refused} points could be trained; the last one: {obstacle}")


def _effort(sampler: SamplerName) -> tuple[int, int]:
    """How many points are taken from a sampler, and how many of them may be near a trial before it is asked no more."""
    match sampler:
        case "gp":
            return _FEWEST_ASKS, _FEWEST_ASKS
        case "qmc":
            return MAX_DRAWS, MAX_DRAWS
        case "random":
            return MAX_ASKS, 1
        case _:
            return MAX_ASKS, _ASKS_FOR_SOMETHING_NEW


def _candidates(
    space: SearchSpace, suggests: Iterator[Suggest], fixed: Mapping[str, Any]
) -> Iterator[Assignment | str]:
    """The points as assignments; a sentence in place of one that cannot be trained."""
    return (_feasible(space, fixed, suggest) for suggest in suggests)


def _feasible(space: SearchSpace, fixed: Mapping[str, Any], suggest: Suggest) -> Assignment | str:
    try:
        assignment = space.sample(lambda name: fixed[name] if name in fixed else suggest(name))
    except Infeasible as error:
        return error.detail
    return space.feasible(assignment) or assignment
