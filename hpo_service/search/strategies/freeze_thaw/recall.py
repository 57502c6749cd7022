"""Trials of earlier studies as a past: their losses made comparable, their parameters placed in another space."""

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
from hpo_service.spec.space import Categories, Dimension, Infeasible, NumberChoices, SearchSpace
from hpo_service.spec.space.dimensions import Scalar


def recall(space: SearchSpace, studies: Sequence[PastStudy]) -> Past:
    """The past of a study over `space`; trials whose parameters have no place in it are left out."""
    cube = Cube(space)
    tables = []
    for study in studies:
        placed = [(place(space, point), loss) for point, loss in zip(study.points, study.losses, strict=True)]
        known = [(cube.locate(sampled), loss) for sampled, loss in placed if sampled is not None]
        if known:
            points, losses = zip(*known, strict=True)
            tables.append(
                PastTable(
                    study=study.study,
                    points=np.array(points),
                    losses=np.array(losses, dtype=np.float64),
                    similarity=study.similarity,
                )
            )
    return Past(cube, tables)


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
    """The point as `space` has its values; None if one is missing or lies outside.

    A number between two choices counts as the nearer one. Fixed and derived parameters are those of `space`.
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
    elif not isinstance(value, str) and form.extremes()[0] <= value <= form.extremes()[1]:
        return _nearest(form, value) if isinstance(form, NumberChoices) else form.spread(form.share(value))
    raise Infeasible(f"{name} cannot be {value!r}.")


def _nearest(form: NumberChoices, value: Scalar) -> Scalar:
    """The choice that is nearest, by ratio where all are positive."""
    ratio = form.values[0] > 0
    gaps = [abs(math.log(float(value) / each)) if ratio else abs(float(value) - each) for each in form.values]
    return form.values[int(np.argmin(gaps))]
