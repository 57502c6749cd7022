"""Read what a user wrote for one parameter: a value, a range, choices or an expression."""

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any

from pydantic import ValidationError

from hpo_service.core.errors import Problem
from hpo_service.core.spelling import did_you_mean, unknown_key
from hpo_service.spec.foreign_names import foreign_call, foreign_form, own_name
from hpo_service.spec.space.dimensions import (
    Categories,
    Constant,
    Derived,
    FloatRange,
    Form,
    IntRange,
    Number,
    NumberChoices,
    Scalar,
)
from trainer.spec import Parameters

MAX_CHOICES = 100
MAX_TEXT = 256
MAX_NUMBER = 10**15
MAX_STEPS = 10**6
#: so many values, at least, are left of a range when what is sampled of it is rounded
_VALUES = 1000
_MOST_DIGITS = 17
DEFAULTS: dict[str, Scalar] = Parameters().model_dump()
"""Every parameter that the trainer knows, with the value it has when a space does not mention it."""

_QUOTED = re.compile(r"'([^']*)'")
_RANGE_KEYS = ("low", "high", "log", "step", "type", "when")
_CHOICE_KEYS = ("choices", "type", "when")
_EXPR_KEYS = ("expr", "when")
_VALUE_KEYS = ("value", "when")
_WAYS = "write a value, {low, high}, {choices: […]} or {expr: …}"


class Refused(Exception):
    """One thing that is wrong with a form. `key` is the key inside the form, empty for the form itself."""

    def __init__(self, detail: str, key: str = "", allowed: tuple[str, ...] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.key = key
        self.allowed = allowed

    def problem(self, pointer: str) -> Problem:
        """The same as a member of an error document."""
        return Problem(
            detail=self.detail, pointer=f"{pointer}/{self.key}" if self.key else pointer, allowed=self.allowed
        )


def read_form(name: str, written: object) -> Form:
    """The form of parameter `name`; Refused if it makes no sense or the trainer cannot take its values."""
    if not isinstance(written, Mapping):
        return Constant(value=_checked(name, _scalar(name, written)))
    if (foreign := foreign_form(name, written)) is not None:
        key, detail = foreign
        raise Refused(detail, key)
    if "expr" in written:
        _require_keys(written, _EXPR_KEYS)
        if not isinstance(written["expr"], str):
            raise Refused(f"{written['expr']!r} is not an expression; quote it, or write the bare value.", "expr")
        return Derived(expr=written["expr"], when=_when(written))
    if "value" in written:
        _require_keys(written, _VALUE_KEYS)
        return Constant(value=_checked(name, _scalar(name, written["value"]), "value"), when=_when(written))
    if "choices" in written:
        _require_keys(written, _CHOICE_KEYS)
        return _choices(name, written)
    _require_keys(written, _RANGE_KEYS)
    if missing := [key for key in ("low", "high") if key not in written]:
        raise Refused(f"{name} lacks {' and '.join(missing)}; {_WAYS}.")
    return _range(name, written)


def number(value: object, key: str = "") -> Number:
    """`value` as a finite number; text such as "1e-4", which some YAML readers leave as text, counts as one."""
    if isinstance(value, str):
        text = value.strip()
        try:
            return number(int(text) if text.lstrip("+-").isdecimal() else float(text), key)
        except ValueError:
            raise Refused(f"{text[:MAX_TEXT]!r} is not a number.", key) from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(f"{repr(value)[:MAX_TEXT]} is not a number.", key)
    if not -MAX_NUMBER <= value <= MAX_NUMBER:
        raise Refused(f"a number lies outside ±{MAX_NUMBER:.0e}, or is not a number at all.", key)
    return value


def typed(name: str, value: object, key: str = "") -> Scalar:
    """`value` in the type of parameter `name`; a name that the trainer does not know takes any scalar."""
    default = DEFAULTS.get(name)
    if isinstance(default, str):
        if isinstance(value, list | tuple):
            raise Refused(f"a value of {name} is a list; each is one text{_together(name, value)}.", key)
        if not isinstance(value, str):
            raise Refused(f"{str(value)[:MAX_TEXT]} is not a word; {name} takes text, quote it.", key)
        return value
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise Refused(f"{str(value)[:MAX_TEXT]} is neither true nor false, which {name} takes.", key)
        return value
    if isinstance(default, int):
        return whole(value, key)
    return float(number(value, key)) if default is not None else _untyped(value, key)


def whole(value: object, key: str = "") -> int:
    """`value` as a whole number."""
    exact = number(value, key)
    if exact != int(exact):
        raise Refused(f"{exact!r} is not a whole number.", key)
    return int(exact)


def _untyped(value: object, key: str) -> Scalar:
    if not isinstance(value, str):
        return number(value, key)
    try:
        return number(value, key)
    except Refused:
        return value[:MAX_TEXT]


def _scalar(name: str, written: object) -> Scalar:
    if isinstance(written, list | tuple):
        raise Refused(f"{name} is a bare list; write {{choices: […]}}{_together(name, written)}.")
    if written is None:
        raise Refused(f"{name} has no value; {_WAYS}.")
    try:
        return typed(name, written)
    except Refused as refused:
        hint = ' For a computed value write {expr: "…"}.' if isinstance(written, str) else ""
        if isinstance(written, str) and (call := foreign_call(name, written)) is not None:
            hint = f" {call}"
        raise Refused(refused.detail + hint) from None


def _together(name: str, values: Sequence[object]) -> str:
    """How modules that are adapted together are written, where a list of their names was."""
    if own_name(name) != "target_modules" or not all(isinstance(value, str) for value in values):
        return ""
    joined = ",".join(map(str, values))[:MAX_TEXT]
    return f", or {joined!r} for adapters on all of them at once"


def _checked(name: str, value: Scalar, key: str = "") -> Scalar:
    """Refuse what the trainer would refuse."""
    if name not in DEFAULTS:
        return value
    try:
        Parameters.model_validate({name: value})
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Input ")
        words = _QUOTED.findall(reason) if first["type"] == "literal_error" else []
        raise Refused(f"{name} = {value!r} is impossible: it {reason}.{did_you_mean(str(value), words)}", key) from None
    return value


def _require_keys(written: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in written:
        if key not in known:
            raise Refused(unknown_key(str(key)[:MAX_TEXT], known), str(key)[:MAX_TEXT], known)


def _when(written: Mapping[str, Any]) -> dict[str, tuple[Scalar, ...]]:
    conditions = written.get("when") or {}
    if not isinstance(conditions, Mapping):
        raise Refused("`when` maps another parameter to the values for which this one is used.", "when")
    read: dict[str, tuple[Scalar, ...]] = {}
    for other, values in conditions.items():
        listed = values if isinstance(values, list | tuple) else [values]
        if not 1 <= len(listed) <= MAX_CHOICES:
            raise Refused(f"`when` on {other} lists {len(listed)} values; 1 to {MAX_CHOICES} are allowed.", "when")
        read[str(other)] = tuple(typed(str(other), value, "when") for value in listed)
    return read


def _choices(name: str, written: Mapping[str, Any]) -> Form:
    listed = written["choices"]
    if not isinstance(listed, list | tuple) or not 1 <= len(listed) <= MAX_CHOICES:
        raise Refused(f"choices of {name} must be a list of 1 to {MAX_CHOICES} values.", "choices")
    values = tuple(_checked(name, typed(name, value, "choices"), "choices") for value in listed)
    if len(set(values)) < len(values):
        raise Refused(f"choices of {name} name a value twice: {', '.join(map(str, values))}.", "choices")
    declared = written.get("type")
    if declared not in (None, "categorical", "int", "float"):
        raise Refused(f"type {declared!r} is unknown.", "type", ("int", "float", "categorical"))
    numbers = tuple(value for value in values if not isinstance(value, str | bool))
    if declared in ("int", "float") and len(numbers) < len(values):
        raise Refused(f"choices of {name} are not all numbers, so its type is categorical.", "type", ("categorical",))
    if declared == "categorical" or len(numbers) < len(values):
        return Categories(values=values, when=_when(written))
    ordered = tuple(sorted(numbers))
    return NumberChoices(values=ordered, log=_is_geometric(ordered), when=_when(written))


def _is_geometric(values: tuple[Number, ...]) -> bool:
    """Whether each of some ascending numbers is more than one and a half times the one before."""
    return len(values) > 1 and values[0] > 0 and all(high > 1.5 * low for low, high in pairwise(values))


def _range(name: str, written: Mapping[str, Any]) -> Form:
    default = DEFAULTS.get(name)
    if isinstance(default, str | bool):
        words = "true or false" if isinstance(default, bool) else "words"
        raise Refused(f"{name} takes {words}, not a range; write {{choices: […]}}.")
    low, high = number(written["low"], "low"), number(written["high"], "high")
    step = number(written["step"], "step") if written.get("step") is not None else None
    log = written.get("log", False)
    if not isinstance(log, bool):
        raise Refused(f"log is {log!r}; it must be true or false.", "log", ("true", "false"))
    if log and step is not None:
        raise Refused(f"{name} has both log and step; drop one of them, or list the values as choices.", "step")
    _require_bounds(name, low, high, step, log)
    for key in ("low", "high"):
        _checked(name, number(written[key]), key)
    if _is_integer(name, written, (low, high, step)):
        if log and low < 1:
            raise Refused(f"{name} has log: true with low {low:g}; a whole number then needs low ≥ 1.", "low")
        return IntRange(
            low=whole(low, "low"),
            high=whole(high, "high"),
            log=log,
            step=1 if step is None else whole(step, "step"),
            when=_when(written),
        )
    digits = fewest_digits(low, high) if step is None else None
    return FloatRange(low=low, high=high, log=log, step=step, digits=digits, when=_when(written))


def fewest_digits(low: float, high: float) -> int:
    """The fewest significant digits, three at least, with which there are `_VALUES` numbers from `low` to `high`."""
    enough = (digits for digits in range(3, _MOST_DIGITS) if _count(low, high, digits) >= _VALUES)
    return next(enough, _MOST_DIGITS)


def _count(low: float, high: float, digits: int) -> float:
    """How many numbers with so many significant digits there are, zero crossed or reached: endlessly many."""
    if low < 0 < high or low == 0 or high == 0:
        return math.inf
    small, large = sorted((abs(low), abs(high)))
    count, decade = 0.0, math.floor(math.log10(small))
    while 10.0**decade <= large:
        width = min(large, 10.0 ** (decade + 1)) - max(small, 10.0**decade)
        count += width / 10.0 ** (decade - digits + 1)
        decade += 1
    return count


def _is_integer(name: str, written: Mapping[str, Any], numbers: tuple[Number | None, ...]) -> bool:
    """The parameter's own type decides, because 1 and 1.0 are the same to many JSON and YAML writers."""
    declared = written.get("type")
    if declared not in (None, "int", "float"):
        raise Refused(f"type {declared!r} does not fit a range.", "type", ("int", "float"))
    default = DEFAULTS.get(name)
    if isinstance(default, int) and declared == "float":
        raise Refused(f"{name} is a whole number; its type cannot be float.", "type", ("int",))
    if default is None and declared is None:
        return all(value is None or isinstance(value, int) for value in numbers)
    return isinstance(default, int) or declared == "int"


def _require_bounds(name: str, low: Number, high: Number, step: Number | None, log: bool) -> None:
    if low >= high:
        remedy = "write the bare value" if low == high else "swap them"
        raise Refused(f"{name} has low {low:g} and high {high:g}; low must be smaller: {remedy}.", "low")
    if log and low <= 0:
        raise Refused(f"{name} has log: true with low {low:g}; a log scale needs low > 0.", "low")
    if step is None:
        return
    if step <= 0:
        raise Refused(f"{name} has step {step:g}; it must be above 0.", "step")
    if (high - low) / step > MAX_STEPS:
        raise Refused(f"step {step:g} of {name} makes more than {MAX_STEPS} values; leave step out.", "step")
    width, exact = Decimal(str(high)) - Decimal(str(low)), Decimal(str(step))
    if width % exact:
        reached = Decimal(str(low)) + width // exact * exact
        raise Refused(
            f"step {step:g} of {name} does not lead from {low:g} to {high:g}; it ends at {reached:g}: "
            "change high or step.",
            "step",
        )
