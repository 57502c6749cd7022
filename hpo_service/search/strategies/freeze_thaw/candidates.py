"""New configurations for the model to choose from, as points [n, dimensions] of the cube."""

from collections.abc import Callable

import numpy as np

from hpo_service.search.strategies.freeze_thaw.gaussian_process import Array
from hpo_service.search.strategies.freeze_thaw.settings import FreezeThawSettings

Score = Callable[[Array], Array]

_CHILD_NOISE = 0.02
_LEAST_MOVED = 1.5
#: points that are closer are the same
_DECIMALS = 9


def even(dimensions: int, count: int, random: np.random.Generator) -> Array:
    """Drawn evenly."""
    return random.random((count, dimensions))


def perturbed(parents: Array, scale: float, count: int, random: np.random.Generator) -> Array:
    """`count` copies of each parent with a random subset of coordinates moved, at least one."""
    copies = np.repeat(parents, count, axis=0)
    dimensions = copies.shape[1]
    moved = random.random(copies.shape) < max(0.35, min(1.0, _LEAST_MOVED / dimensions))
    moved[np.arange(len(copies)), random.integers(dimensions, size=len(copies))] = True
    found: Array = np.clip(copies + random.normal(0, scale, copies.shape) * moved, 0, 1)
    return found


def child(ranked: Array, random: np.random.Generator) -> Array:
    """Differential evolution (Storn, Price 1997): one of the best moved by the difference of two good ones.

    `ranked` [n, dimensions] are at least two points, best first.
    """
    parent = ranked[random.integers(min(len(ranked), max(3, len(ranked) // 6)))]
    one, other = ranked[random.choice(min(len(ranked), max(4, len(ranked) // 2)), 2, replace=False)]
    crossed = random.random(len(parent)) < 0.5
    crossed[random.integers(len(parent))] = True
    moved = np.where(crossed, parent + random.uniform(0.3, 0.8) * (one - other), parent)
    moved = moved + random.normal(0, _CHILD_NOISE, len(parent))
    return np.where((moved < 0) | (moved > 1), random.random(len(parent)), moved)


def proposed(
    ranked: Array, score: Score, settings: FreezeThawSettings, random: np.random.Generator, remembered: Array
) -> Array:
    """Candidates, best score first: even draws, moves around the best of `ranked`, and moves around the best of those.

    `remembered` [n, dimensions] join them from elsewhere. `score` answers -inf for what must not be proposed.
    """
    parents = ranked[: settings.local_parents]
    points = np.concatenate(
        [
            even(ranked.shape[1], settings.global_candidates, random),
            *(perturbed(parents, scale, settings.local_candidates, random) for scale in settings.local_scales),
            remembered,
        ]
    )
    scores = score(points)
    for refinement in range(settings.refinements):
        best = points[np.argsort(-scores, kind="stable")[: settings.refined_candidates]]
        more = perturbed(best, 0.1 * 0.5**refinement, settings.local_candidates, random)
        points, scores = np.concatenate([points, more]), np.concatenate([scores, score(more)])
    return points[np.argsort(-scores, kind="stable")]


def distinct(points: Array) -> Array:
    """The points in their order, without repeats."""
    _, first = np.unique(np.round(points, _DECIMALS), axis=0, return_index=True)
    return points[np.sort(first)]
