"""One check of `hpo doctor`."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`remedy` is empty where nothing is wrong."""

    check: str
    ok: bool
    detail: str
    remedy: str = ""


def finding(check: str, ok: bool, detail: str, remedy: str = "") -> Finding:
    """The remedy is told only where it is needed."""
    return Finding(check=check, ok=ok, detail=detail, remedy="" if ok else remedy)
