"""The hash chain of the audit log: every row holds the hash of the one before it, so none changes by itself."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import NamedTuple

BEGINNING = "0" * 64
"""What stands for the hash before the first row."""


class Head(NamedTuple):
    """The last row of a chain; `BEGINNING` of one without rows."""

    number: int
    hash: str


NO_ROWS = Head(0, BEGINNING)


@dataclass(frozen=True, kw_only=True)
class Link:
    """One row of the log without its own hash. `number` counts the rows of a project from 1; `details` is JSON."""

    project_id: int
    number: int
    at: datetime
    who: str
    key_id: int | None
    action: str
    object: str
    outcome: str
    status: int | None
    request_id: str | None
    client: str | None
    details: str
    previous: str

    def hash(self) -> str:
        """SHA-256 of all of it as canonical JSON: names sorted, no spaces, ASCII, time in UTC to the microsecond."""
        fields = vars(self) | {"at": self.at.astimezone(UTC).isoformat(timespec="microseconds")}
        return sha256(canonical(fields).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a chain holds; else the number of the first row that is not as it was written, and why."""

    head: Head
    broken: int | None = None
    why: str = ""


def canonical(value: object) -> str:
    """The one way in which a value is written as JSON here."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def check(rows: Iterable[tuple[Link, str]], head: Head, known: Head | None = None) -> Verdict:
    """Recompute a chain. `rows` come by number, each with the hash that is written beside it.

    `head` is where the database says that the chain ends, `known` a row that somebody wrote down elsewhere.
    """
    last = NO_ROWS
    for link, written in rows:
        why = _fault(link, written, last)
        if why is None and known is not None and link.number == known.number and written != known.hash:
            why = f"it has another hash than the one that was written down ({known.hash})"
        if why is not None:
            return Verdict(head=last, broken=min(link.number, last.number + 1), why=why)
        last = Head(link.number, written)
    end = head if known is None or head.number >= known.number else known
    if last.number < end.number:
        return Verdict(head=last, broken=last.number + 1, why=f"rows {last.number + 1} to {end.number} are missing")
    if last != head:
        return Verdict(head=last, broken=last.number, why="it is not the row that the chain is known to end with")
    return Verdict(head=last)


def _fault(link: Link, written: str, last: Head) -> str | None:
    if link.number != last.number + 1:
        return f"row {last.number + 1} is missing: row {link.number} comes after row {last.number}"
    if link.previous != last.hash:
        return f"it does not follow row {last.number}: the hash of the row before is another one"
    if link.hash() != written:
        return "it is not what was written: its hash is another one"
    return None
