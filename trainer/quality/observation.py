"""What a check saw, before thresholds say what it means."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from trainer.quality.table import MAX_LINES


@dataclass(frozen=True)
class Observation:
    """See `trainer.spec.quality.Finding`. `not_run` is the reason why nothing was measured."""

    check: str
    measure: float = 0.0
    rows: int = 0
    lines: tuple[str, ...] = ()
    message: str = ""
    not_run: str | None = None


def first_lines(labels: Iterable[str]) -> tuple[str, ...]:
    """As many as a report names."""
    return tuple(islice(labels, MAX_LINES))


def of_rows(check: str, rows: int, total: int, lines: Iterable[str], what: str) -> Observation:
    """A share of rows: `what` completes "3 of 40 rows ..."."""
    share = rows / total if total else 0.0
    message = f"{rows:,} of {total:,} {what} ({share:.2%})" if rows else f"none of {total:,} {what}"
    return Observation(check, share, rows, first_lines(lines), message)
