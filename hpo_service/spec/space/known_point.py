"""Check a known point (a baseline, an enqueued trial) against the space and take the sampled part of it."""

from collections.abc import Mapping
from math import isclose
from typing import Any

from hpo_service.core.errors import InvalidSpec, Problem
from hpo_service.core.spelling import did_you_mean
from hpo_service.spec.foreign_names import foreign_name
from hpo_service.spec.space.core import Infeasible, Space, is_used
from hpo_service.spec.space.dimensions import Dimension, OutsideForm, Scalar
from hpo_service.spec.space.expressions import Value
from hpo_service.spec.space.forms import DEFAULTS, Refused, typed


def known_point(space: Space, values: Mapping[str, object], pointer: str = "") -> dict[str, Any]:
    """See `SearchSpace.point`."""
    return _KnownPoint(space, values, pointer).run()


class _KnownPoint:
    def __init__(self, space: Space, values: Mapping[str, object], pointer: str) -> None:
        self._space = space
        self._given = values
        self._pointer = pointer
        self._names: dict[str, Value] = space.surroundings()
        self._used = set[str]()
        self._unknown = set[str]()
        self._point: dict[str, Any] = {}
        self._problems: list[Problem] = []

    def run(self) -> dict[str, Any]:
        for name, value in self._given.items():
            if name not in self._space.forms:
                self._check_outsider(name, value)
        for name in self._space.order:
            try:
                self._visit(name)
            except (Refused, OutsideForm, Infeasible) as error:
                self._report(name, f"{name}: {error}")
                self._unknown.add(name)
        if not self._problems and not self._unknown:
            self._check_complete()
        if self._problems:
            raise InvalidSpec(self._problems[0].detail, problems=self._problems)
        return self._point

    def _report(self, name: str, detail: str) -> None:
        escaped = name[:80].replace("~", "~0").replace("/", "~1")
        where = f"{self._pointer}/{escaped}" if name else self._pointer
        self._problems.append(Problem(detail=detail if detail.endswith(".") else detail + ".", pointer=where))

    def _check_outsider(self, name: str, value: object) -> None:
        if name not in DEFAULTS:
            known = {*DEFAULTS, *self._space.forms}
            foreign = foreign_name(name)
            self._report(name, foreign or f"there is no parameter {name[:80]!r} here.{did_you_mean(name, known)}")
            return
        try:
            agrees = typed(name, value) == DEFAULTS[name]
        except Refused as refused:
            self._report(name, refused.detail)
            return
        if not agrees:
            self._report(
                name,
                f"{name} is not in the space, so every trial has {DEFAULTS[name]!r}; add it to the space to set it.",
            )

    def _visit(self, name: str) -> None:
        form, given = self._space.forms[name], name in self._given
        depends = self._space.depends_on(name)
        if self._unknown.intersection(depends):
            self._unknown.add(name)
            if isinstance(form, Dimension) and given:
                self._point[name] = form.taken(typed(name, self._given[name]))
            elif given:
                raise Refused(f"it follows from {', '.join(depends)}, not all of which are given; leave it out")
            return
        if not is_used(form, self._names, self._used):
            if given:
                raise Refused(f"it is not used at this point (its `when` is {_conditions(form.when)}); leave it out")
            return
        self._used.add(name)
        if isinstance(form, Dimension):
            self._take(name, form)
        else:
            self._agree(name)

    def _take(self, name: str, form: Dimension) -> None:
        if name not in self._given:
            self._unknown.add(name)
            return
        self._point[name] = form.taken(typed(name, self._given[name]))
        self._names[name] = self._point[name]

    def _agree(self, name: str) -> None:
        value = self._names[name] = self._space.fixed_value(name, self._names)
        if name not in self._given:
            return
        given = typed(name, self._given[name])
        same = given == value
        if isinstance(given, int | float) and isinstance(value, int | float):
            same = isclose(given, value, rel_tol=1e-9)
        if not same:
            raise Refused(f"{given!r} disagrees with the space, where it is {value!r} here; leave it out")

    def _check_complete(self) -> None:
        try:
            reason = self._space.feasible(self._space.assignment(self._point))
        except Infeasible as error:
            reason = error.detail
        if reason is not None:
            self._report("", f"this point cannot be trained: {reason}")


def _conditions(when: Mapping[str, tuple[Scalar, ...]]) -> str:
    return "; ".join(f"{other}: {', '.join(map(str, values))}" for other, values in when.items())
