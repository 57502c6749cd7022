"""The forms a parameter can take in a search space: its values, as Optuna's tables and as samplers see them.

A *position* is what a sampler of Optuna works with: of numeric choices the place in their list, else the value itself.
Its distributions cannot say "one of these numbers, in this order", so only samplers see positions; tables, people and
trials have values.
"""

import math
from abc import abstractmethod
from decimal import Decimal, localcontext
from typing import Annotated, Literal

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import Field

from trainer.spec import Frozen

Number = int | float
Scalar = bool | int | float | str
When = dict[str, tuple[Scalar, ...]]


class OutsideForm(ValueError):
    """A value that a form cannot take; the message says what it can."""


class _Conditional(Frozen):
    """`when` lists, for other parameters, the values for which this one is used at all."""

    when: When = Field(default_factory=dict)


class _Sampled(_Conditional):
    """What samplers see of a form: its values themselves, unless it says otherwise."""

    @abstractmethod
    def distribution(self) -> BaseDistribution:
        """As Optuna's tables have it."""

    def positions(self) -> BaseDistribution:
        """As samplers see it."""
        return self.distribution()

    def position(self, value: Scalar) -> Scalar:
        """What samplers see of a value."""
        return value


class FloatRange(_Sampled):
    """A real number between `low` and `high`, both included.

    What is sampled is rounded to so many significant `digits`, so that what people read, copy and export is what ran;
    None where a `step` does that, and in studies that are older than the rule.
    """

    kind: Literal["float"] = "float"
    low: float
    high: float
    log: bool = False
    step: float | None = None
    digits: Annotated[int, Field(ge=3, le=17)] | None = None

    def distribution(self) -> BaseDistribution:
        """As Optuna's tables have it."""
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def at(self, position: Scalar) -> float:
        """The value at a position."""
        return self._rounded(float(position))

    def taken(self, value: Scalar) -> float:
        """`value` in this form's type; OutsideForm if it is none of its values."""
        number = _within(value, self.low, self.high)
        if self.step is not None:
            steps = (number - self.low) / self.step
            if abs(steps - round(steps)) > 1e-8:
                raise OutsideForm(f"{value!r} is not {self.low:g} plus a multiple of {self.step:g}")
        return float(number)

    def spread(self, share: float) -> float:
        """The value at `share` (0 to 1) of the form, evenly spread the way it is sampled."""
        if self.log:
            value = math.exp(_between(math.log(self.low), math.log(self.high), share))
            return self._rounded(min(self.high, max(self.low, value)))
        if self.step is None:
            return self._rounded(_between(self.low, self.high, share))
        count = round((self.high - self.low) / self.step)
        return min(self.high, self.low + min(count, int(share * (count + 1))) * self.step)

    def _rounded(self, value: float) -> float:
        """The nearest value with `digits` significant digits that is not outside; ends of the range stay as written."""
        if self.digits is None or value in (0, self.low, self.high):
            return value
        with localcontext(prec=self.digits):
            exact = Decimal(value)
            candidates = (+exact, exact.next_minus() if +exact > exact else exact.next_plus())
        inside = [float(one) for one in candidates if self.low <= float(one) <= self.high]
        return inside[0] if inside else value

    def share(self, value: Scalar) -> float:
        """The inverse of `spread`: the middle of the shares that give `value`."""
        number = float(value)
        if self.log:
            return _part(math.log(self.low), math.log(self.high), math.log(number))
        if self.step is None:
            return _part(self.low, self.high, number)
        return _cell(round((number - self.low) / self.step), round((self.high - self.low) / self.step) + 1)

    def levels(self) -> int | None:
        """How many values there are; None if it is continuous."""
        return None if self.step is None else round((self.high - self.low) / self.step) + 1

    def extremes(self) -> tuple[float, float]:
        """Smallest and largest value."""
        return self.low, self.high


class IntRange(_Sampled):
    """A whole number between `low` and `high`, both included."""

    kind: Literal["int"] = "int"
    low: int
    high: int
    log: bool = False
    step: int = 1

    def distribution(self) -> BaseDistribution:
        """As Optuna's tables have it."""
        return IntDistribution(self.low, self.high, log=self.log, step=self.step)

    def at(self, position: Scalar) -> int:
        """The value at a position."""
        return int(position)

    def taken(self, value: Scalar) -> int:
        """`value` in this form's type; OutsideForm if it is none of its values."""
        number = _within(value, self.low, self.high)
        if number != int(number):
            raise OutsideForm(f"{value!r} is not a whole number")
        if (int(number) - self.low) % self.step:
            raise OutsideForm(f"{value!r} is not {self.low} plus a multiple of {self.step}")
        return int(number)

    def spread(self, share: float) -> int:
        """The value at `share` (0 to 1) of the form, evenly spread the way it is sampled."""
        if self.log:
            position = math.exp(_between(math.log(self.low - 0.5), math.log(self.high + 0.5), share))
            return min(self.high, max(self.low, round(position)))
        count = (self.high - self.low) // self.step
        return self.low + min(count, int(share * (count + 1))) * self.step

    def share(self, value: Scalar) -> float:
        """The inverse of `spread`: the middle of the shares that give `value`."""
        if self.log:
            return _part(math.log(self.low - 0.5), math.log(self.high + 0.5), math.log(int(value)))
        return _cell((int(value) - self.low) // self.step, (self.high - self.low) // self.step + 1)

    def levels(self) -> int | None:
        """How many values there are."""
        return (self.high - self.low) // self.step + 1

    def extremes(self) -> tuple[float, float]:
        """Smallest and largest value."""
        return self.low, self.high


class NumberChoices(_Sampled):
    """Some numbers in ascending order, to which others can be added at both ends.

    Optuna's tables have their span, whole (`IntDistribution`) if all are, on a log scale if `log`. Optuna lets a span
    grow but not change its type or scale, so both stay what they were when the study began.
    """

    kind: Literal["numbers"] = "numbers"
    values: Annotated[tuple[Number, ...], Field(min_length=1)]
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether all are whole numbers."""
        return all(isinstance(value, int) for value in self.values)

    def distribution(self) -> BaseDistribution:
        """As Optuna's tables have it."""
        low, high = self.values[0], self.values[-1]
        if self.whole:
            return IntDistribution(int(low), int(high), log=self.log)
        return FloatDistribution(low, high, log=self.log)

    def positions(self) -> BaseDistribution:
        """As samplers see it."""
        return IntDistribution(0, len(self.values) - 1)

    def position(self, value: Scalar) -> int:
        """What samplers see of a value."""
        return self.values.index(value)

    def at(self, position: Scalar) -> Number:
        """The value at a position."""
        return self.values[int(position)]

    def taken(self, value: Scalar) -> Number:
        """`value` in this form's type; OutsideForm if it is none of its values."""
        if value not in self.values:
            raise OutsideForm(f"{value!r} is none of {_listed(self.values)}")
        return self.values[self.values.index(value)]

    def spread(self, share: float) -> Number:
        """The value at `share` (0 to 1) of the form, evenly spread the way it is sampled."""
        return self.values[min(len(self.values) - 1, int(share * len(self.values)))]

    def share(self, value: Scalar) -> float:
        """The inverse of `spread`: the middle of the shares that give `value`."""
        return _cell(self.values.index(value), len(self.values))

    def levels(self) -> int | None:
        """How many values there are."""
        return len(self.values)

    def extremes(self) -> tuple[float, float]:
        """Smallest and largest value."""
        return self.values[0], self.values[-1]


class Categories(_Sampled):
    """One of some words (or true and false, or numbers declared `type: categorical`) that have no order."""

    kind: Literal["categories"] = "categories"
    values: Annotated[tuple[Scalar, ...], Field(min_length=1)]

    def distribution(self) -> BaseDistribution:
        """As Optuna's tables have it."""
        return CategoricalDistribution(self.values)

    def at(self, position: Scalar) -> Scalar:
        """The value at a position."""
        return self.values[self.values.index(position)]

    def taken(self, value: Scalar) -> Scalar:
        """`value` in this form's type; OutsideForm if it is none of its values."""
        if value not in self.values:
            raise OutsideForm(f"{value!r} is none of {_listed(self.values)}")
        return self.at(value)

    def spread(self, share: float) -> Scalar:
        """The value at `share` (0 to 1) of the form, evenly spread the way it is sampled."""
        return self.values[min(len(self.values) - 1, int(share * len(self.values)))]

    def share(self, value: Scalar) -> float:
        """The inverse of `spread`: the middle of the shares that give `value`."""
        return _cell(self.values.index(value), len(self.values))

    def levels(self) -> int | None:
        """How many values there are."""
        return len(self.values)

    def extremes(self) -> tuple[float, float]:
        """Smallest and largest value; zeros if the values are words."""
        numbers = [value for value in self.values if not isinstance(value, str | bool)]
        return min(numbers, default=0), max(numbers, default=0)


class Constant(_Conditional):
    """A fixed value."""

    kind: Literal["constant"] = "constant"
    value: Scalar


class Derived(_Conditional):
    """A value computed from others, never sampled."""

    kind: Literal["derived"] = "derived"
    expr: str


Dimension = FloatRange | IntRange | NumberChoices | Categories
Form = Annotated[Dimension | Constant | Derived, Field(discriminator="kind")]


def _within(value: Scalar, low: float, high: float) -> Number:
    if isinstance(value, str) or not low <= value <= high:
        raise OutsideForm(f"{value!r} is not between {low:g} and {high:g}")
    return value


def _between(low: float, high: float, share: float) -> float:
    return low + (high - low) * share


def _part(low: float, high: float, value: float) -> float:
    return min(1.0, max(0.0, (value - low) / (high - low)))


def _cell(position: int, count: int) -> float:
    return (position + 0.5) / count


def _listed(values: tuple[Scalar, ...]) -> str:
    return ", ".join(str(value) for value in values)
