"""Spans of time as people write them: `90d`, `12h`, `30m`."""

import re
from datetime import timedelta

from hpo_service.core.errors import InvalidRequest

_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes"}
_WRITTEN = re.compile(r"([1-9][0-9]{0,5})([wdhm])")


def seconds_of(text: str) -> int:
    """Raises InvalidRequest for what is no span of time."""
    match = _WRITTEN.fullmatch(text)
    if match is None:
        raise InvalidRequest(f"{text!r} is no span of time; write 90d, 12h or 30m (w, d, h, m).")
    return int(timedelta(**{_UNITS[match[2]]: int(match[1])}).total_seconds())
