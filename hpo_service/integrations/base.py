"""What an outbox tells to whom: the ports of sinks and of trackers, and the values that they are told."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from hpo_service.storage.queries.outbox import OutboxEvent

#: what trackers know by the plain name; what belongs to another project begins with that one's
DEFAULT_PROJECT = "default"
#: the alias of a model's version that production uses
CHAMPION = "champion"


class SinkAway(Exception):
    """The receiver does not answer, or not now: the same is told again later."""


class SinkRefused(Exception):
    """The receiver will never take this: it is left out, and the rest goes on."""


def quoted(error: Exception) -> str:
    """What a client of others said, as one line that is not too long."""
    return json.dumps(" ".join(str(error).split())[:500], ensure_ascii=False)


class Sink(Protocol):
    """Tells committed events to a receiver outside."""

    @property
    def name(self) -> str:
        """Of its cursor."""

    @property
    def from_now(self) -> bool:
        """Whether it leaves out what happened before it was first switched on."""

    def take(self, outbox: str, events: Sequence[OutboxEvent]) -> Iterator[int]:
        """Tell the events in order; yields the id up to which everything is told, at last that of the last event.

        What follows the last id that was yielded may be told again. `outbox` is the identity of the sender.

        Raises SinkAway.
        """


class RunState(StrEnum):
    """Of a run at a tracker."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    KILLED = "killed"  #: ended before its time: pruned, cancelled


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run at a tracker: of a study, or of a trial below its study's. `key` finds it again among all runs."""

    key: str
    name: str
    project: str
    parent: "Run | None"
    started_at: datetime
    tags: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure after so many examples."""

    name: str
    value: float
    examples: int
    at: datetime


@dataclass(frozen=True, kw_only=True)
class RunUpdate:
    """What is new of a run. `write_files` writes what belongs to it below an empty folder; raises SinkAway."""

    run: Run
    parameters: Mapping[str, str] = field(default_factory=dict)
    metrics: Sequence[Metric] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    state: RunState | None = None
    ended_at: datetime | None = None
    write_files: Callable[[Path], None] | None = None


@dataclass(frozen=True, kw_only=True)
class Registration:
    """A promotion at a tracker: a run's adapter as a version of the model `name`. `key` finds the version again.

    One that may be used (`champion`) takes the place of those that were promoted before it; one that goes back to an
    earlier promotion has that one's key.
    """

    key: str
    name: str
    promoted_at: datetime
    run: Run
    tags: Mapping[str, str]
    champion: bool
    write_files: Callable[[Path], None]

    @property
    def promoted_since(self) -> str:
        """`promoted_at` as text: what is later sorts behind."""
        return self.promoted_at.astimezone(UTC).isoformat(timespec="microseconds")


class Tracker(Protocol):
    """A place where experiments are tracked."""

    @property
    def name(self) -> str:
        """Of the sink that it is told by."""

    def update(self, update: RunUpdate) -> None:
        """Bring the run up to this; it is made if it is not there. Told again, the same changes nothing.

        Raises SinkAway or SinkRefused.
        """

    def register(self, registration: Registration) -> None:
        """Make the version if it is not there, and the champion if it is to be. Told again, the same changes nothing.

        Raises SinkAway or SinkRefused.
        """
