"""A space as a value: which names there are, how a point is sampled or decoded, whether it is feasible."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from optuna.distributions import BaseDistribution
from pydantic import TypeAdapter, ValidationError

from hpo_service.core.errors import InvalidSpec
from hpo_service.spec.space.dimensions import Categories, Constant, Derived, Dimension, Form, Scalar
from hpo_service.spec.space.expressions import Expression, ExpressionError, Value, parse_expression
from hpo_service.spec.space.forms import DEFAULTS
from trainer.spec import Parameters

Suggest = Callable[[str], Any]
"""Answers the value of a parameter."""

PROBES = 256
_forms: TypeAdapter[dict[str, Form]] = TypeAdapter(dict[str, Form])


class Infeasible(InvalidSpec):
    """A point of the space that the trainer or a constraint refuses."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One point of a space: what was sampled, and all parameters as the trainer takes them."""

    sampled: dict[str, Any]
    parameters: Parameters


@dataclass(frozen=True)
class Space:
    """Forms by name, constraints and the facts that expressions may read."""

    forms: Mapping[str, Form]
    constraints: tuple[Expression, ...]
    facts: Mapping[str, int]

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The space that `to_json` wrote."""
        return cls(
            _forms.validate_python(document["parameters"]),
            tuple(parse_expression(text) for text in document["constraints"]),
            dict(document["facts"]),
        )

    def to_json(self) -> dict[str, Any]:
        """JSON for `from_json`; the order of keys carries no meaning."""
        return {
            "parameters": _forms.dump_python(dict(self.forms), mode="json"),
            "constraints": [constraint.text for constraint in self.constraints],
            "facts": dict(self.facts),
        }

    @cached_property
    def dimensions(self) -> tuple[str, ...]:
        """The names that are sampled, in the order in which they are."""
        return tuple(name for name in self.order if isinstance(self.forms[name], Dimension))

    @cached_property
    def conditional(self) -> bool:
        """True if some parameter is not used by every trial."""
        return any(form.when for form in self.forms.values())

    def distributions(self) -> dict[str, BaseDistribution]:
        """What Optuna's tables say of every sampled name."""
        return {name: form.distribution() for name, form in self.forms.items() if isinstance(form, Dimension)}

    @cached_property
    def order(self) -> tuple[str, ...]:
        """All names, each after those it depends on; the same whatever the order in the user's file was."""
        waiting = sorted(self.forms, key=lambda name: (name not in DEFAULTS, _RANKS.get(name, 0), name))
        done: dict[str, None] = {}
        while waiting:
            ready = next(name for name in waiting if all(other in done for other in self.depends_on(name)))
            waiting.remove(ready)
            done[ready] = None
        return tuple(done)

    def depends_on(self, name: str) -> tuple[str, ...]:
        """The names of the space that `name` reads in its expression or its conditions."""
        read = set(self.forms[name].when)
        if name in self.expressions:
            read |= self.expressions[name].names
        return tuple(sorted(read & set(self.forms)))

    @cached_property
    def expressions(self) -> dict[str, Expression]:
        """The expression of every derived name."""
        return {name: parse_expression(form.expr) for name, form in self.forms.items() if isinstance(form, Derived)}

    def sample(self, suggest: Suggest) -> Assignment:
        """Ask `suggest` for every name in use, compute the rest.

        Raises:
            Infeasible: an expression has no value here or the trainer refuses one. Constraints are not looked at.
        """
        sampled: dict[str, Any] = {}
        names, used = self.surroundings(), set[str]()
        for name in self.order:
            form = self.forms[name]
            if not is_used(form, names, used):
                continue
            used.add(name)
            if isinstance(form, Dimension):
                names[name] = sampled[name] = suggest(name)
            else:
                names[name] = self.fixed_value(name, names)
        return Assignment(sampled=sampled, parameters=_parameters(names))

    def assignment(self, sampled: Mapping[str, Any]) -> Assignment:
        """The assignment that follows from all sampled values; Infeasible as in `sample`."""

        def look_up(name: str) -> Any:  # noqa: ANN401
            if name not in sampled:
                raise InvalidSpec(f"the point has no value for {name}, which this space samples.")
            return sampled[name]

        return self.sample(look_up)

    def spread(self, name: str, share: float) -> Scalar:
        """The value of a sampled name at `share` (0 to 1) of its range."""
        return self.dimension(name).spread(share)

    def dimension(self, name: str) -> Dimension:
        """The form of a sampled name."""
        form = self.forms[name]
        assert isinstance(form, Dimension), f"{name} is not sampled"
        return form

    def feasible(self, assignment: Assignment) -> str | None:
        """Why the assignment breaks a constraint, as a sentence; None if it breaks none."""
        names = self.surroundings() | assignment.parameters.model_dump()
        names |= {name: value for name, value in assignment.sampled.items() if name not in DEFAULTS}
        for name in self.order:
            if name not in names:
                names[name] = self.fixed_value(name, names)
        for constraint in self.constraints:
            try:
                holds = constraint.evaluate(names)
            except ExpressionError as error:
                return error.detail
            if not holds:
                read = ", ".join(f"{name}={names[name]}" for name in sorted(constraint.names))
                return f"the constraint {constraint.text!r} does not hold for {read}"
        return None

    def surroundings(self) -> dict[str, Value]:
        """What expressions see before anything is sampled: the facts and the trainer's defaults."""
        return {**DEFAULTS, **self.facts}

    def fixed_value(self, name: str, names: Mapping[str, Value]) -> Scalar:
        """The value of a constant or derived name; Infeasible if the expression has none."""
        form = self.forms[name]
        if isinstance(form, Constant):
            return form.value
        try:
            return self.expressions[name].evaluate(names)
        except ExpressionError as error:
            raise Infeasible(f"{name} has no value: {error.detail}") from error

    def probe(self) -> Iterator[Assignment | str]:
        """Both extremes and `PROBES` points spread over the space, always the same; a sentence if it is infeasible."""
        source = random.Random(0)  # noqa: S311
        for share in (lambda: 0.0, lambda: 1.0, *[source.random] * PROBES):
            yield self._probe(share)

    def _probe(self, share: Callable[[], float]) -> Assignment | str:
        try:
            assignment = self.sample(lambda name: self.spread(name, share()))
        except Infeasible as error:
            return error.detail
        return self.feasible(assignment) or assignment

    @cached_property
    def probes(self) -> tuple[Assignment, ...]:
        """The feasible ones of `probe`."""
        return tuple(probe for probe in self.probe() if isinstance(probe, Assignment))

    def commonest_obstacle(self) -> str:
        """The most frequent reason why points of this space are infeasible, empty if none is."""
        reasons = Counter(probe for probe in self.probe() if isinstance(probe, str))
        return reasons.most_common(1)[0][0] if reasons else ""

    def values(self, name: str) -> set[object]:
        """Every value of a parameter that has no order: its categories, else what probing found."""
        form = self.forms.get(name)
        listed = set(form.values) if isinstance(form, Categories) else set()
        return listed | {getattr(probe.parameters, name) for probe in self.probes}

    def largest(self, name: str) -> float:
        """The largest value that a numeric parameter takes in this space."""
        values = [float(getattr(probe.parameters, name)) for probe in self.probes]
        form = self.forms.get(name)
        if isinstance(form, Dimension):
            values.append(float(form.extremes()[1]))
        return max(values, default=float(DEFAULTS[name]))


_RANKS = {name: rank for rank, name in enumerate(DEFAULTS)}


def is_used(form: Form, names: Mapping[str, Value], used: set[str]) -> bool:
    """True if every condition of `form` holds; a parameter that is not used itself fulfils none."""
    return all(other in used and names[other] in values for other, values in form.when.items())


def _parameters(names: Mapping[str, Value]) -> Parameters:
    try:
        return Parameters.model_validate({name: names[name] for name in DEFAULTS})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        hint = "; use round(), ceil() or floor()" if first["type"] == "int_from_float" else ""
        reason = first["msg"].removeprefix("Input ")
        raise Infeasible(f"{name} = {names[name]!r} is impossible: it {reason}{hint}.") from None
