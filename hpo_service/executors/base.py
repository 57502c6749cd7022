"""The executor port: it starts workers, hands them slices and jobs and notices their death.

It knows no study and no database.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from hpo_service.core.study_rules import Cause
from trainer.spec import Job, JobResult, Progress, Ready, Slice, SliceResult

Token = tuple[int, int]
Work = Slice | Job
"""What a worker is given: either has a token, and tokens never collide."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a study with work wants: workers of `ranks` ranks, for up to `slices` slices at once, on the same `base`."""

    ranks: int = 1
    slices: int = 1
    base: str = ""


@dataclass(frozen=True, kw_only=True)
class WorkerReady:
    """A worker is warm. `places` are the devices that it occupies, `node/device` each."""

    worker: str
    ready: Ready
    node: str = ""
    places: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WorkerGone:
    """A worker's process has ended; every slice and job it held is lost. `reason` is a sentence.

    `replaced`: it ended itself or was drained, which is no crash. `places`: where it was, even if never ready.
    """

    worker: str
    reason: str
    replaced: bool = False
    cause: Cause = Cause.WORKER_DIED
    places: tuple[str, ...] = ()


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


@dataclass(frozen=True, kw_only=True)
class JobEnded:
    """An attempt at a job ended by itself; the result is the worker's own account."""

    worker: str
    result: JobResult


ExecutorEvent = WorkerReady | WorkerGone | SliceProgress | SliceEnded | JobEnded


class Executor(Protocol):
    """Runs slices and jobs on workers.

    One thread, that of the dispatcher's loop, calls everything from `start` to `close`. Only `wake` may be called on
    any other thread, at any time, after `close` too, and in a signal handler.

    Contract (tests/contracts/executors/test_executor.py): every submitted `(slice, attempt)` is followed by exactly one
    of `SliceEnded` with its token or `WorkerGone` of the worker that holds it, every job by one of `JobEnded` or
    `WorkerGone`. A job runs beside the slices and takes no slot; a worker runs one at a time. A worker that died is
    replaced without being asked, after a delay that grows when it keeps dying, unless one of its places is excluded.
    A slice that is to run `alone` is given to a worker that holds no other slice, which then takes no more.
    """

    name: str
    lasting: bool
    """Whether workers go on when the dispatcher ends, and wait for the next one; else they end with it."""
    devices_setting: str
    """The setting by which its workers get more devices."""

    def start(self) -> None:
        """Start the workers; returns at once, they report `WorkerReady` when warm. Called once the lease is won."""

    def reattach(self) -> Mapping[str, Sequence[Token]]:
        """Workers of an earlier dispatcher that still live, by name, with the attempts that each holds.

        An attempt is held while it runs, and until its result was `taken`. They report `WorkerReady` and what was not
        taken again. Called after `start`, before attempts of the past are given up; may be called again.
        """

    def taken(self, tokens: Collection[Token]) -> None:
        """The ends of these attempts are committed: nobody needs to keep their results any more."""

    @property
    def largest_group(self) -> int:
        """The most ranks that a worker can have here."""

    @property
    def devices_present(self) -> int | None:
        """Devices that there are now, busy or not; None while that is not known. More than these may come."""

    def demand(self, wanted: Sequence[Wanted]) -> None:
        """What studies with work want now, the most urgent first; told often.

        Workers that nobody wants give way to wanted ones as soon as they are idle. Nothing wanted: all stay.
        """

    def free_slots(self, prefetch: bool, ranks: int = 1, without: Collection[str] = ()) -> int:
        """How many more slices the ready workers of `ranks` ranks would take now, those in `without` left out.

        With `prefetch`, one queued slice a worker counts.
        """

    def choose(
        self,
        work: Work,
        prefetch: bool,
        planned: Mapping[str, int] = MappingProxyType({}),
        without: Collection[str] = (),
    ) -> str | None:
        """The worker that would take the work now, those in `without` left out; None if none would.

        A slice goes to a worker of its trial's number of ranks, and to one that holds the trial if there is one.
        `planned` are slices by worker that were chosen for and will be submitted: they count as if it held them. For a
        job they are jobs.
        """

    def submit(self, work: Work, worker: str) -> None:
        """Hand the work to the worker that `choose` named. If it has died, its `WorkerGone` is still to be polled."""

    def stop(self, token: tuple[int, int]) -> None:
        """Ask for `preempted`: of a slice at the next step boundary, of a job at once.

        A token that no worker holds is ignored.
        """

    def kill(self, worker: str, reason: str, cause: Cause) -> None:
        """End the worker's whole process group now, whatever state it is in; its `WorkerGone` has reason and cause.

        It is replaced like one that died. An unknown worker is ignored.
        """

    def drain(self, worker: str) -> None:
        """Give the worker nothing more; once it is idle it ends (cause `worker_ended`) and is replaced.

        It goes on with what it holds: ask its slices to stop. An unknown worker is ignored.
        """

    def exclude(self, places: Sequence[str]) -> None:
        """Start no worker at these places until they are included again. One that is there drains, without successor.

        Nothing remembers this but the executor: tell it again whenever it was started.
        """

    def include(self, places: Sequence[str]) -> None:
        """Places that were excluded may have workers again, which start without being asked."""

    def poll(self, timeout_seconds: float) -> Sequence[ExecutorEvent]:
        """All that happened since the last call; waits up to `timeout_seconds` for the first event."""

    def wake(self) -> None:
        """Make `poll` return early: the one that waits, else the next one. The only method for any thread."""

    def close(self) -> None:
        """End all workers and wait for them. What still runs is reported to nobody."""
