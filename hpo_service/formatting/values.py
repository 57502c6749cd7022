"""Numbers, times and values in a few characters."""

import json
from collections.abc import Mapping
from datetime import datetime

Cell = str | int | float | None

_MINUTES_FROM_SECONDS = 120
_HOURS_FROM_SECONDS = 7200


def cell(value: Cell) -> str:
    """A cell of a table: a dash for None, five digits for numbers that are not whole."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.5g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def value_text(value: object) -> str:
    """The value of a parameter."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, Mapping | list | tuple | bool) or value is None:
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def loss(value: float | None) -> str | None:
    """Four digits after the point."""
    return None if value is None else f"{value:.4f}"


def share(value: float | None) -> str | None:
    """In percent."""
    return None if value is None else f"{value:.1%}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < _MINUTES_FROM_SECONDS:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < _HOURS_FROM_SECONDS else f"{seconds / 3600:.1f} h"


def gpu_hours(seconds: float) -> str:
    """Device seconds as hours, with the seconds where they are few."""
    hours = f"{seconds / 3600:.3g} GPU-hours"
    return hours if seconds >= _HOURS_FROM_SECONDS else f"{hours} ({duration(seconds)})"


def energy(joules: float | None) -> str | None:
    """Kilowatt-hours."""
    return None if joules is None else f"{joules / 3.6e6:.3g} kWh"


def moment(when: datetime | None) -> str | None:
    """A time in UTC, to the second."""
    return None if when is None else f"{when:%Y-%m-%d %H:%M:%S} UTC"


def lowering(loss_difference: float) -> str:
    """By how much a loss is expected to fall; nothing is said of digits that no loss is shown with."""
    least = 1e-4
    return f"{loss_difference:.3g}" if loss_difference >= least else f"less than {least:g}"


def after_more(examples: int, other_examples: int) -> str:
    """A clause on a loss that is of other examples than the one it stands beside; empty where it is of the same."""
    return "" if other_examples == examples else f" after {other_examples:,}"


def parts_ahead(ahead: int, parts: int) -> str:
    """A clause on how many parts of the evaluation rows have the lower loss; empty where no parts are known."""
    return f", lower on {ahead} of {parts} parts of the evaluation rows" if parts else ""


def plural(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
