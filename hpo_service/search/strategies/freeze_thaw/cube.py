"""A search space as a unit cube, and a point of the cube as what a Gaussian process reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo_service.spec.space import Assignment, Categories, Dimension, Infeasible, SearchSpace

Array = NDArray[np.float64]

_MOST_LEVELS = 512
_MIDDLE = 0.5


@dataclass(frozen=True)
class Cube:
    """One coordinate in [0, 1] a sampled parameter, NaN where a parameter is not used.

    Coordinates are spread as the parameter is sampled: evenly in the logarithm where it is on a log scale, one cell of
    equal width a choice. Derived parameters follow from the others and have no coordinate.
    """

    space: SearchSpace

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The sampled parameters."""
        return self.space.dimensions

    @cached_property
    def forms(self) -> tuple[Dimension, ...]:
        """Their forms."""
        forms = (self.space.forms[name] for name in self.names)
        return tuple(form for form in forms if isinstance(form, Dimension))

    def locate(self, sampled: Mapping[str, Any]) -> Array:
        """Coordinates [dimensions] of sampled values."""
        shares = [
            form.share(sampled[name]) if name in sampled else np.nan
            for name, form in zip(self.names, self.forms, strict=True)
        ]
        return np.array(shares, dtype=np.float64)

    def assignment(self, point: Array) -> Assignment | None:
        """What a point [dimensions] stands for; None if it cannot be trained or breaks a constraint."""
        coordinates = dict(zip(self.names, np.nan_to_num(point, nan=_MIDDLE).tolist(), strict=True))
        try:
            found = self.space.sample(lambda name: self.space.spread(name, coordinates[name]))
        except Infeasible:
            return None
        return found if self.space.feasible(found) is None else None

    def snap(self, points: Array) -> Array:
        """Points [n, dimensions] moved to the middle of their cells where a parameter has few values."""
        snapped = points.copy()
        for column, grid in enumerate(self._grids):
            if grid is not None:
                nearest = np.searchsorted((grid[1:] + grid[:-1]) / 2, points[:, column])
                snapped[:, column] = np.where(np.isnan(points[:, column]), np.nan, grid[nearest])
        return snapped

    @cached_property
    def _grids(self) -> tuple[Array | None, ...]:
        return tuple(_grid(form) for form in self.forms)

    @cached_property
    def groups(self) -> NDArray[np.intp]:
        """Which dimension each feature belongs to, [features]."""
        widths = [len(_columns(form, np.zeros(1))) for form in self.forms]
        return np.repeat(np.arange(len(widths)), widths)

    @cached_property
    def layout(self) -> list[str]:
        """Changes with the meaning of the features; a range that grew keeps it."""
        return [f"{name}:{form.kind}" for name, form in zip(self.names, self.forms, strict=True)]

    def features(self, points: Array) -> Array:
        """Features [n, features] of points [n, dimensions].

        An ordered parameter is its coordinate, a category one of orthogonal corners at distance 1. A parameter that is
        not used sits in the middle, at distance 1 from being used.
        """
        columns = [column for index, form in enumerate(self.forms) for column in _columns(form, points[:, index])]
        return np.stack(columns, axis=1)


def _grid(form: Dimension) -> Array | None:
    levels = form.levels()
    if levels is None or levels > _MOST_LEVELS:
        return None
    if isinstance(form, Categories):
        return (np.arange(levels) + 0.5) / levels
    coded = dict.fromkeys(form.spread(share) for share in np.linspace(0, 1, 4 * levels))
    return np.array(sorted(form.share(value) for value in coded))


def _columns(form: Dimension, shares: Array) -> list[Array]:
    unused = np.isnan(shares)
    if isinstance(form, Categories):
        chosen = np.minimum(np.floor(np.where(unused, 0.0, shares) * len(form.values)), len(form.values) - 1)
        columns = [((chosen == index) & ~unused) / np.sqrt(2) for index in range(len(form.values))]
    else:
        columns = [np.where(unused, _MIDDLE, shares)]
    return [*columns, 1.0 - unused] if form.when else columns
