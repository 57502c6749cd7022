"""Whether what is shown is the value that it stands for."""

import math
from typing import Any

_FEWEST_DIGITS = 3


def says(shown: Any, value: Any) -> bool:
    """Whether `shown`, a value or its text, is `value`, or is it rounded to three or more shown digits."""
    if isinstance(value, bool):
        return str(shown).lower() == str(value).lower()
    if isinstance(value, str) or value is None:
        return bool(shown == value)
    if isinstance(shown, str):
        return _says_number(shown.replace(",", ""), float(value))
    return isinstance(shown, int | float) and not isinstance(shown, bool) and shown == value


def _says_number(text: str, value: float) -> bool:
    try:
        number = float(text)
    except ValueError:
        return text == "not finite" and not math.isfinite(value)
    mantissa = text.lower().partition("e")[0].lstrip("-").replace(".", "").lstrip("0")
    if number == value:
        return True
    return len(mantissa) >= _FEWEST_DIGITS and float(f"{value:.{len(mantissa)}g}") == number
