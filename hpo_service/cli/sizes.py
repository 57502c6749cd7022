"""Limits as people write them: `8`, `1.5`, `500GB`, `2TiB`, `none`."""

import re

from hpo_service.core.errors import InvalidRequest

_UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_WRITTEN = re.compile(rf"([0-9]{{1,15}})(\.[0-9]{{1,6}})?({'|'.join(_UNITS)})?")
_HOURS = "gpu_hours_month"
_BYTES = "stored_bytes"
_MOST = 10**15


def limit_of(text: str, limit: str) -> float | None:
    """The number, None for `none`. Raises InvalidRequest for what is no such limit."""
    if text == "none":
        return None
    match = _WRITTEN.fullmatch(text)
    value = float(match[1] + (match[2] or "")) * _UNITS.get(match[3], 1) if match else -1.0
    unfit = match is None or value > _MOST or (match[3] and limit != _BYTES)
    if unfit or (limit != _HOURS and not value.is_integer()):
        example = "500GB or 2TiB" if limit == _BYTES else "12.5" if limit == _HOURS else "8"
        option = limit.replace("_", "-")
        raise InvalidRequest(f"--{option} {text[:40]!r} is no limit; write a number such as {example}, or none.")
    return value if limit == _HOURS else int(value)
