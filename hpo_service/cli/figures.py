"""Speed, memory and data checks in a few words."""

from typing import Any

Json = dict[str, Any]

_PHASES = ("load", "data", "train", "evaluate", "snapshot")


def efficiency(usage: Json) -> Json:
    """Speed and where the time went, as fields of a record; what is not known is left out."""
    phases = (*_PHASES, "lost") if usage["lost_seconds"] else _PHASES
    total = sum(usage[f"{phase}_seconds"] for phase in phases)
    shares = ", ".join(f"{usage[f'{phase}_seconds'] / total:.0%} {phase}" for phase in phases) if total else None
    joules = usage["energy_joules"]
    fields = {
        "tokens": f"{usage['tokens']} ({whole(usage['tokens_per_second'])} a second)" if usage["tokens"] else None,
        "MFU, HFU": f"{percent(usage['mfu'])}, {percent(usage['hfu'])}" if usage["mfu"] is not None else None,
        "busy": percent(usage["busy"]),
        "energy": f"{joules / 3.6e6:.3g} kWh" if joules else None,
        "time went to": shares,
        "peak memory": gibibytes(usage["peak_memory_bytes"]),
    }
    return {name: value for name, value in fields.items() if value is not None}


def ran_as(attempt: Json) -> str:
    """On what, and how, an attempt ran."""
    device = f"{attempt['devices']} x {attempt['device']}" if attempt["devices"] > 1 else attempt["device"]
    micro_batch = f"micro-batch {attempt['micro_batch']}" if attempt["micro_batch"] else ""
    return ", ".join(part for part in (device, attempt["dtype"], attempt["attention"], micro_batch) if part)


def check_sentence(check: Json) -> str:
    """A data check in one line."""
    if check["state"] == "pending":
        return f"pending (job {check['job']}); --wait waits for it"
    if check["report"] is None:
        return f"{check['state']} ({check['message']})" if check["message"] else str(check["state"])
    found = [finding for finding in check["report"]["findings"] if finding["verdict"] in ("warn", "fail")]
    listed = "; ".join(f"{finding['verdict']} {finding['check']}: {finding['message']}" for finding in found)
    return f"{check['state']}: {listed}" if listed else str(check["state"])


def percent(share: float | None) -> str | None:
    """A share for humans."""
    return None if share is None else f"{share:.1%}"


def whole(number: float | None) -> str | None:
    """A number without its digits after the point."""
    return None if number is None else f"{number:.0f}"


def megabytes(size_bytes: int) -> str:
    """A file for humans."""
    return f"{size_bytes / 1e6:.1f} MB"


def gibibytes(size_bytes: int | None) -> str | None:
    """Memory for humans."""
    return f"{size_bytes / 2**30:.2f} GiB" if size_bytes else None
