"""From values to places on a plot, with round ticks."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

_ROUND = (1.0, 2.0, 2.5, 5.0, 10.0)
_MARGIN = 0.04


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Values from `low` to `high` on pixels from `start` to `end`, evenly or by logarithm. `whole`: they count."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    whole: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value; what lies outside is put at the nearer end."""
        low, high, value = self._even(self.low), self._even(self.high), self._even(min(max(value, self.low), self.high))
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values within the scale."""
        if self.log:
            return _log_ticks(self.low, self.high, about)
        return _even_ticks(self.low, self.high, about, whole=self.whole)

    def _even(self, value: float) -> float:
        return math.log10(value) if self.log else value


def scale_over(values: Iterable[float], start: float, end: float, *, log: bool = False, whole: bool = False) -> Scale:
    """A scale that holds all values, with a little air unless they count something. From 0 to 1 without values."""
    known = sorted(value for value in values if not log or value > 0)
    if not known:
        return Scale(low=0.1 if log else 0.0, high=1.0, start=start, end=end, log=log)
    low, high = known[0], known[-1]
    air = 0.0 if whole else _MARGIN
    if log:
        factor = (high / low) ** air if high > low else 2.0
        return Scale(low=low / factor, high=high * factor, start=start, end=end, log=True)
    width = (high - low) * air if high > low else abs(high) * _MARGIN or 0.5
    return Scale(low=low - width, high=high + width, start=start, end=end, whole=whole)


def short(value: float) -> str:
    """A number on an axis."""
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e6):
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _even_ticks(low: float, high: float, about: int, *, whole: bool) -> list[float]:
    raw = max((high - low) / about, 1.0 if whole else 0.0)
    power = 10.0 ** math.floor(math.log10(raw))
    steps = (factor * power for factor in _ROUND)
    step = next(step for step in steps if step >= raw * 0.999 and (not whole or step == int(step)))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [float(f"{place * step:.10g}") for place in range(first, last + 1)]


def _log_ticks(low: float, high: float, about: int) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1,) if last - first > about else (1, 3) if last - first > 2 else (1, 2, 5)
    found = [float(f"{factor}e{power}") for power in range(first, last + 1) for factor in factors]
    inside = [value for value in found if low <= value <= high]
    step = -(-len(inside) // (about + 2)) or 1
    return inside[::step]
