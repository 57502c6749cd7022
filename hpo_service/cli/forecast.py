"""A forecast as a sentence."""

from datetime import datetime
from typing import Any

Json = dict[str, Any]


def forecast_sentence(study: Json) -> str | None:
    """Costs 212 USD (190 to 240), ends 18:40 (18:15 to 19:05)."""
    found = study["forecast"]
    if found is None:
        return None
    usd, hours = found["usd"], found["gpu_hours"]
    priced = usd["expected"] > 0
    amount, unit = (usd, "USD") if priced else (hours, "GPU-hours")
    cost = f"costs {amount['expected']:.3g} {unit} ({amount['low']:.3g} to {amount['high']:.3g})"
    first, middle, last = (_local(found[key]) for key in ("earliest", "ends_at", "latest"))
    shown = "%H:%M" if last.date() == datetime.now().astimezone().date() else "%d %b %H:%M"
    return f"{cost}, ends {middle.strftime(shown)} ({first.strftime(shown)} to {last.strftime(shown)})"


def _local(written: str) -> datetime:
    return datetime.fromisoformat(written).astimezone()
