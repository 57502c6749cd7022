"""The next assignment: the first point of a sampler that can be trained and is new."""

from collections.abc import Iterator, Mapping
from hashlib import sha256
from itertools import chain, islice
from typing import Any

from hpo_service.search.samplers.sources import Seeds, drawn, points
from hpo_service.search.strategies.base import StudyView
from hpo_service.spec import SamplerName
from hpo_service.spec.sampler_support import used_sampler
from hpo_service.spec.space import Assignment, Infeasible, SearchSpace, Suggest

MAX_ASKS = 50
MAX_DRAWS = 2000
#: a point of a Gaussian process takes long
_FEWEST_ASKS = 5
_ASKS_FOR_SOMETHING_NEW = 10


def propose_assignment(
    space: SearchSpace, view: StudyView, sampler: SamplerName, fixed: Mapping[str, Any]
) -> tuple[Assignment, int]:
    """The next assignment, and how many points were thrown away because they cannot be trained or were tried before.

    `fixed` holds values that are not sampled (an enqueued point). A point that was tried before is proposed only
    if nothing new is found soon: training it again would give the same losses.

    Raises:
        Infeasible: no point that can be trained was found.
    """
    digest = sha256(f"{view.seed}:{view.decision_number}".encode()).digest()
    seeds = Seeds(study=view.seed, proposal=int.from_bytes(digest[:4], "big"))
    asks, patience = _effort(used_sampler(sampler, len(view.trials)))
    suggests = chain(islice(points(sampler, space, view, seeds), asks), islice(drawn(space, digest), MAX_DRAWS))
    repeated: Assignment | None = None
    obstacle = ""
    for count, candidate in enumerate(_candidates(space, suggests, fixed)):
        if isinstance(candidate, str):
            obstacle = candidate
        elif fixed or not view.roster.is_tried(candidate.parameters.model_dump()):
            return candidate, count
        else:
            repeated = repeated or candidate
        if repeated is not None and count >= patience:
            return repeated, count
    if repeated is not None:
        return repeated, asks + MAX_DRAWS
    raise Infeasible(f"none of {asks + MAX_DRAWS} points could be trained; the last one: {obstacle}")


def _effort(sampler: SamplerName) -> tuple[int, int]:
    """How many points are taken from a sampler, and how many in all to find a new one."""
    match sampler:
        case "gp":
            return _FEWEST_ASKS, _ASKS_FOR_SOMETHING_NEW
        case "qmc":
            return MAX_DRAWS, MAX_DRAWS
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
