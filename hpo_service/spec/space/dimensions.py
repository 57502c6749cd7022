"""The forms a parameter can take in a search space, and how each sampled form is coded for Optuna."""

import math
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


class FloatRange(_Conditional):
    """A real number between `low` and `high`, both included."""

    kind: Literal["float"] = "float"
    low: float
    high: float
    log: bool = False
    step: float | None = None

    def distribution(self) -> BaseDistribution:
        """Optuna's view of this form."""
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def real(self, coded: Scalar) -> float:
        """The value that a coded one stands for."""
        return float(coded)

    def code(self, value: Scalar) -> float:
        """Optuna's coding of `value`; OutsideForm if it cannot be taken."""
        number = _within(value, self.low, self.high)
        if self.step is not None:
            steps = (number - self.low) / self.step
            if abs(steps - round(steps)) > 1e-8:
                raise OutsideForm(f"{value!r} is not {self.low:g} plus a multiple of {self.step:g}")
        return float(number)

    def spread(self, share: float) -> float:
        """The coded value at `share` (0 to 1) of the form, evenly spread the way it is sampled."""
        if self.log:
            return min(self.high, max(self.low, math.exp(_between(math.log(self.low), math.log(self.high), share))))
        if self.step is None:
            return _between(self.low, self.high, share)
        count = round((self.high - self.low) / self.step)
        return min(self.high, self.low + min(count, int(share * (count + 1))) * self.step)

    def share(self, coded: Scalar) -> float:
        """The inverse of `spread`: the middle of the shares that give `coded`."""
        value = float(coded)
        if self.log:
            return _part(math.log(self.low), math.log(self.high), math.log(value))
        if self.step is None:
            return _part(self.low, self.high, value)
        return _cell(round((value - self.low) / self.step), round((self.high - self.low) / self.step) + 1)

    def levels(self) -> int | None:
        """How many values there are; None if it is continuous."""
        return None if self.step is None else round((self.high - self.low) / self.step) + 1

    def extremes(self) -> tuple[float, float]:
        """Smallest and largest real value."""
        return self.low, self.high


class IntRange(_Conditional):
    """A whole number between `low` and `high`, both included."""

    kind: Literal["int"] = "int"
    low: int
    high: int
    log: bool = False
    step: int = 1

    def distribution(self) -> BaseDistribution:
        """Optuna's view of this form."""
        return IntDistribution(self.low, self.high, log=self.log, step=self.step)

    def real(self, coded: Scalar) -> int:
        """The value that a coded one stands for."""
        return int(coded)

    def code(self, value: Scalar) -> int:
        """Optuna's coding of `value`; OutsideForm if it cannot be taken."""
        number = _within(value, self.low, self.high)
        if number != int(number):
            raise OutsideForm(f"{value!r} is not a whole number")
        if (int(number) - self.low) % self.step:
            raise OutsideForm(f"{value!r} is not {self.low} plus a multiple of {self.step}")
        return int(number)

    def spread(self, share: float) -> int:
        """The coded value at `share` (0 to 1) of the form, evenly spread the way it is sampled."""
        if self.log:
            position = math.exp(_between(math.log(self.low - 0.5), math.log(self.high + 0.5), share))
            return min(self.high, max(self.low, round(position)))
        count = (self.high - self.low) // self.step
        return self.low + min(count, int(share * (count + 1))) * self.step

    def share(self, coded: Scalar) -> float:
        """The inverse of `spread`: the middle of the shares that give `coded`."""
        if self.log:
            return _part(math.log(self.low - 0.5), math.log(self.high + 0.5), math.log(int(coded)))
        return _cell((int(coded) - self.low) // self.step, (self.high - self.low) // self.step + 1)

    def levels(self) -> int | None:
        """How many values there are."""
        return (self.high - self.low) // self.step + 1

    def extremes(self) -> tuple[float, float]:
        """Smallest and largest real value."""
        return self.low, self.high


class NumberChoices(_Conditional):
    """Some numbers in ascending order, coded as an index that can grow at both ends.

    The value first written as the smallest keeps index 0 for ever; numbers added below it get negative indexes.
    """

    kind: Literal["numbers"] = "numbers"
    values: Annotated[tuple[Number, ...], Field(min_length=1)]
    first_index: Annotated[int, Field(le=0)] = 0

    def distribution(self) -> BaseDistribution:
        """Optuna's view of this form."""
        return IntDistribution(self.first_index, self.first_index + len(self.values) - 1)

    def real(self, coded: Scalar) -> Number:
        """The value that a coded one stands for."""
        position = int(coded) - self.first_index
        if not 0 <= position < len(self.values):
            raise OutsideForm(f"index {coded} stands for none of {_listed(self.values)}")
        return self.values[position]

    def code(self, value: Scalar) -> int:
        """Optuna's coding of `value`; OutsideForm if it cannot be taken."""
        if value not in self.values:
            raise OutsideForm(f"{value!r} is none of {_listed(self.values)}")
        return self.values.index(value) + self.first_index

    def spread(self, share: float) -> int:
        """The coded value at `share` (0 to 1) of the form, evenly spread the way it is sampled."""
        return self.first_index + min(len(self.values) - 1, int(share * len(self.values)))

    def share(self, coded: Scalar) -> float:
        """The inverse of `spread`: the middle of the shares that give `coded`."""
        return _cell(int(coded) - self.first_index, len(self.values))

    def levels(self) -> int | None:
        """How many values there are."""
        return len(self.values)

    def extremes(self) -> tuple[float, float]:
        """Smallest and largest real value."""
        return self.values[0], self.values[-1]


class Categories(_Conditional):
    """One of some words (or true and false, or numbers declared `type: categorical`) that have no order."""

    kind: Literal["categories"] = "categories"
    values: Annotated[tuple[Scalar, ...], Field(min_length=1)]

    def distribution(self) -> BaseDistribution:
        """Optuna's view of this form."""
        return CategoricalDistribution(self.values)

    def real(self, coded: Scalar) -> Scalar:
        """The value that a coded one stands for."""
        return self.values[self.values.index(coded)]

    def code(self, value: Scalar) -> Scalar:
        """Optuna's coding of `value`; OutsideForm if it cannot be taken."""
        if value not in self.values:
            raise OutsideForm(f"{value!r} is none of {_listed(self.values)}")
        return self.real(value)

    def spread(self, share: float) -> Scalar:
        """The coded value at `share` (0 to 1) of the form, evenly spread the way it is sampled."""
        return self.values[min(len(self.values) - 1, int(share * len(self.values)))]

    def share(self, coded: Scalar) -> float:
        """The inverse of `spread`: the middle of the shares that give `coded`."""
        return _cell(self.values.index(coded), len(self.values))

    def levels(self) -> int | None:
        """How many values there are."""
        return len(self.values)

    def extremes(self) -> tuple[float, float]:
        """Smallest and largest real value; zeros if the values are words."""
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
