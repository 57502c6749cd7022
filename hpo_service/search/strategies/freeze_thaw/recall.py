"""Trials of earlier studies as a past: their losses made comparable, their parameters placed in another space.

A value that the new space does not have is *read* where it was and *offered* at the nearest value that there is. A loss
belongs to the configuration that had it: told as that of the nearest one inside, a trial that diverged at ten times the
largest learning rate would speak against the largest one. So the model is told of points outside of the cube, and what
it expects of the nearest point inside is its own prediction.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hpo_service.search.strategies.base import TrialView
from hpo_service.search.strategies.freeze_thaw import curves
from hpo_service.search.strategies.freeze_thaw.cube import Cube
from hpo_service.search.strategies.freeze_thaw.gaussian_process import Array
from hpo_service.search.strategies.freeze_thaw.past import Past, PastTable
from hpo_service.search.strategies.freeze_thaw.settings import FreezeThawSettings
from hpo_service.spec import PastStudy
from hpo_service.spec.space import Categories, Dimension, FloatRange, Infeasible, IntRange, NumberChoices, SearchSpace
from hpo_service.spec.space.dimensions import Scalar


def recall(space: SearchSpace, studies: Sequence[PastStudy]) -> Past:
    """The past of a study over `space`; trials whose parameters have no place in it are left out."""
    cube = Cube(space)
    return Past(cube, [_table(cube, study) for study in studies])


def _table(cube: Cube, study: PastStudy) -> PastTable:
    placed = [place(cube.space, point) for point in study.points]
    known = [index for index, sampled in enumerate(placed) if sampled is not None]
    good = sorted(set(study.good) & set(known), key=lambda index: study.losses[index])
    return PastTable(
        study=study.study,
        points=_rows(cube, [_located(cube, study.points[index], placed[index] or {}) for index in known]),
        losses=np.array([study.losses[index] for index in known], dtype=np.float64),
        good=_rows(cube, [cube.locate(placed[index] or {}) for index in good]),
        similarity=study.similarity,
    )


def _rows(cube: Cube, points: Sequence[Array]) -> Array:
    return np.array(points, dtype=np.float64).reshape(len(points), len(cube.names))


def _located(cube: Cube, point: Mapping[str, Any], placed: Mapping[str, Any]) -> Array:
    """Where the point was, [dimensions]: `placed` is the nearest that the space has."""
    outside = [
        0.0 if name not in placed or isinstance(form, Categories) else _outside(form, float(point[name]))
        for name, form in zip(cube.names, cube.forms, strict=True)
    ]
    found: Array = cube.locate(placed) + np.array(outside)
    return found


def _outside(form: FloatRange | IntRange | NumberChoices, value: float) -> float:
    """How far a number lies above (below 0: below) the form's range, in ranges, one at most."""
    low, high = map(float, form.extremes())
    nearest = min(high, max(low, value))
    if value == nearest:
        return 0.0
    if not form.log:
        ranges = (value - nearest) / (high - low) if high > low else math.inf
    else:
        ranges = math.log(value / nearest) / math.log(high / low) if value > 0 and high > low else math.inf
    return math.copysign(min(1.0, abs(ranges)), value - nearest)


def carried(trials: Sequence[TrialView], ladder: Sequence[int]) -> Array:
    """The loss of each trial [n] at the ladder's end, along the study's common curve where it stopped before.

    All have a loss, all losses are finite. Those who stopped early mostly were not good: the common curve is that of
    all trials, not of the survivors.
    """
    known = curves.read(trials, ladder, FreezeThawSettings().squash)
    last = np.zeros(len(trials), dtype=np.intp)
    last[known.rows] = np.arange(len(known.rows))
    ends = np.full(len(trials), float(ladder[-1]))
    found: Array = np.exp(known.log_loss(known.values[last], ends))
    return found


def place(space: SearchSpace, point: Mapping[str, Any]) -> dict[str, Any] | None:
    """The point as `space` has its values, each the nearest; None if one is missing or no choice of words here.

    Fixed and derived parameters are those of `space`.
    """

    def look_up(name: str) -> Any:  # noqa: ANN401
        if name not in point:
            raise Infeasible(f"{name} is not known.")
        return _placed(name, space.dimension(name), point[name])

    try:
        return space.sample(look_up).sampled
    except Infeasible:
        return None


def _placed(name: str, form: Dimension, value: Scalar) -> Scalar:
    if isinstance(form, Categories):
        if value in form.values:
            return value
    elif not isinstance(value, str):
        low, high = form.extremes()
        inside = min(high, max(low, value))
        return _nearest(form, inside) if isinstance(form, NumberChoices) else form.spread(form.share(inside))
    raise Infeasible(f"{name} cannot be {value!r}.")


def _nearest(form: NumberChoices, value: Scalar) -> Scalar:
    """The choice that is nearest, by ratio where all are positive."""
    ratio = form.values[0] > 0
    gaps = [abs(math.log(float(value) / each)) if ratio else abs(float(value) - each) for each in form.values]
    return form.values[int(np.argmin(gaps))]
