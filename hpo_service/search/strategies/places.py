"""Points of a space as places: how far two of them are apart is their largest difference, 1 at most.

A place has a coordinate a sampled parameter: of a number its share of the range, as it is sampled; of a numeric choice
that of its place among the choices; of a category its index, so that another one is 1 away at least; of a parameter
that is not used a number that is 2 away from all of these.
"""

from collections.abc import Mapping
from functools import cached_property
from math import inf, log, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo_service.search.strategies.trials import Roster
from hpo_service.spec.space import (
    Assignment,
    Categories,
    Constant,
    Derived,
    Dimension,
    FloatRange,
    Infeasible,
    IntRange,
    SearchSpace,
)
from hpo_service.spec.space.dimensions import Scalar

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: a space with more points is not looked at point by point
MOST_POINTS = 4096
_UNUSED = -2.0
_MIDDLE = 0.5
_KEPT = "places"


class Places:
    """The places of one space. `shares` are what a point is made of: one between 0 and 1 a sampled parameter."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self._forms: dict[str, Dimension] = {name: space.dimension(name) for name in space.dimensions}

    def of_sampled(self, sampled: Mapping[str, Any]) -> Array:
        """[dimensions]."""
        found = [_coordinate(form, sampled[name]) if name in sampled else _UNUSED for name, form in self._forms.items()]
        return np.array(found, dtype=np.float64)

    def of_trials(self, roster: Roster) -> Array:
        """[trials, dimensions], by number. As long as the space does not change only what is new is looked at."""
        kept, outdated = roster.kept(_KEPT)
        if kept is None or kept[0] is not self.space:
            kept, outdated = (self.space, np.zeros((0, len(self._forms)))), frozenset(range(len(roster)))
        places: Array = kept[1]
        if outdated:
            places = np.concatenate([places, np.empty((len(roster) - len(places), len(self._forms)))])
            for number in outdated:
                places[number] = self.of_sampled(roster[number].sampled)
            roster.keep(_KEPT, (self.space, places))
        return places

    def of_shares(self, shares: Array) -> Array:
        """[n, dimensions] of shares [n, dimensions]."""
        if self._reads_derived:
            return np.array([self._of_point(row) for row in shares]).reshape(shares.shape)
        places, used = np.empty_like(shares), dict[str, Mask]()
        for column, (name, form) in enumerate(self._forms.items()):
            place = _settled(form, shares[:, column])
            places[:, column] = np.where(self._used(name, shares, used), place, _UNUSED)
        return places

    def shares_of(self, place: Array) -> Array:
        """Shares [dimensions] that lead to a place; the middle where a parameter is not used."""
        found = [
            _MIDDLE if at == _UNUSED else (at + 0.5) / len(form.values) if isinstance(form, Categories) else at
            for at, form in zip(place.tolist(), self._forms.values(), strict=True)
        ]
        return np.array(found, dtype=np.float64)

    def assignment(self, shares: Array) -> Assignment | str:
        """What shares [dimensions] stand for; a sentence in place of what cannot be trained."""
        known = dict(zip(self._forms, shares.tolist(), strict=True))
        try:
            found = self.space.sample(lambda name: self.space.spread(name, known[name]))
        except Infeasible as error:
            return error.detail
        return self.space.feasible(found) or found

    def every_point(self) -> Array | None:
        """The shares [n, dimensions] of all points of the space; None if there are more than `MOST_POINTS`."""
        if self.count > MOST_POINTS:
            return None
        axes = [[form.share(value) for value in _values(form)] for form in self._forms.values()]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))

    @cached_property
    def count(self) -> float:
        """So many points there are at most."""
        return prod(form.levels() or inf for form in self._forms.values())

    @cached_property
    def unordered(self) -> Mask:
        """[dimensions]: whether a parameter has no order, so that nothing is a little beside a value of it."""
        return np.array([isinstance(form, Categories) for form in self._forms.values()], dtype=np.bool_)

    def _of_point(self, shares: Array) -> Array:
        found = self.assignment(shares)
        return np.full(len(shares), _UNUSED) if isinstance(found, str) else self.of_sampled(found.sampled)

    @cached_property
    def _reads_derived(self) -> bool:
        forms = self.space.forms
        return any(isinstance(forms[other], Derived) for form in forms.values() for other in form.when)

    def _used(self, name: str, shares: Array, known: dict[str, Mask]) -> Mask:
        """[n]: whether the parameter is used at the points."""
        if name not in known:
            mask = np.ones(len(shares), dtype=np.bool_)
            for other, values in self.space.forms[name].when.items():
                mask &= self._used(other, shares, known) & self._is_one_of(other, values, shares)
            known[name] = mask
        return known[name]

    def _is_one_of(self, name: str, values: tuple[Scalar, ...], shares: Array) -> Mask:
        form = self.space.forms[name]
        if isinstance(form, Constant):
            return np.full(len(shares), form.value in values)
        few, which = np.unique(shares[:, list(self._forms).index(name)], return_inverse=True)
        return np.array([self._forms[name].spread(share) in values for share in few.tolist()], dtype=np.bool_)[which]


def _coordinate(form: Dimension, value: Scalar) -> float:
    return float(form.values.index(value)) if isinstance(form, Categories) else form.share(value)


def _settled(form: Dimension, shares: Array) -> Array:
    """Coordinates [n] at shares [n]: as `form.share(form.spread(share))`, for many at once."""
    levels = form.levels()
    if levels is None:
        return shares
    if isinstance(form, IntRange) and form.log:
        low, high = log(form.low - 0.5), log(form.high + 0.5)
        values = np.clip(np.rint(np.exp(low + (high - low) * shares)), form.low, form.high)
        found: Array = (np.log(values) - low) / (high - low)
        return found
    cells = np.clip(np.floor(shares * levels), 0, levels - 1)
    return cells if isinstance(form, Categories) else (cells + 0.5) / levels


def _values(form: Dimension) -> list[Scalar]:
    """All values of a form that has levels."""
    if isinstance(form, IntRange):
        return list(range(form.low, form.high + 1, form.step))
    if isinstance(form, FloatRange):
        count = form.levels() or 0
        return [form.spread((index + 0.5) / count) for index in range(count)]
    return list(form.values)
