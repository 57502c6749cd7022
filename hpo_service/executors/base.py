"""The executor port: it starts workers, hands them slices and notices their death.

It knows no study and no database.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from trainer.spec import Progress, Ready, Slice, SliceResult


@dataclass(frozen=True, kw_only=True)
class WorkerReady:
    """A worker is warm."""

    worker: str
    ready: Ready


@dataclass(frozen=True, kw_only=True)
class WorkerGone:
    """A worker's process has ended; every slice it held is lost. `reason` is a sentence."""

    worker: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class SliceProgress:
    """A running slice moved."""

    worker: str
    progress: Progress


@dataclass(frozen=True, kw_only=True)
class SliceEnded:
    """An attempt ended by itself; the result is the worker's own account."""

    worker: str
    result: SliceResult


ExecutorEvent = WorkerReady | WorkerGone | SliceProgress | SliceEnded


class Executor(Protocol):
    """Runs slices on workers. Thread-safe; `poll` is called by one thread only.

    Contract (tests/contracts/test_executor.py): every submitted `(slice, attempt)` is followed by exactly one of
    `SliceEnded` with its token or `WorkerGone` of the worker that holds it. A worker that died is replaced without
    being asked, after a delay that grows when it keeps dying.
    """

    name: str

    def start(self) -> None:
        """Start the workers; returns at once, they report `WorkerReady` when warm."""

    def free_slots(self, prefetch: bool) -> int:
        """How many more slices the ready workers would take now; with `prefetch`, one queued slice a worker counts."""

    def choose(self, work: Slice, prefetch: bool) -> str | None:
        """The worker that would take the slice now: one that holds the trial if it is free, None if none is."""

    def submit(self, work: Slice, worker: str) -> None:
        """Hand the slice to the worker that `choose` named. If it has died, its `WorkerGone` is still to be polled."""

    def stop_slice(self, token: tuple[int, int]) -> None:
        """Ask for `preempted` at the next step boundary; a token that no worker holds is ignored."""

    def poll(self, timeout_seconds: float) -> Sequence[ExecutorEvent]:
        """All that happened since the last call; waits up to `timeout_seconds` for the first event."""

    def wake(self) -> None:
        """Make a waiting `poll` return early."""

    def close(self) -> None:
        """End all workers and wait for them. Slices still running are reported to nobody."""
