"""Which workers stand still: judged by what their slices say, on a clock that stops while this process does."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from hpo_service.executors.base import (
    ExecutorEvent,
    JobEnded,
    SliceEnded,
    SliceProgress,
    Token,
    WorkerGone,
    WorkerReady,
)
from trainer.spec import Progress

#: So much of the time between two looks counts: when this process stood still, or waited for the database, it could
#: not have heard anything.
_LONGEST_GAP_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a worker may say nothing of the work that it holds.

    `floor_seconds` or `step_multiple` times the slowest step so far of a slice that trains, whichever is longer; the
    floor, too, before it has begun the first slice of several. Start-up loads models and data, and evaluation may look
    at very long examples, so they have limits of their own. A job says nothing before it ends.
    """

    floor_seconds: float = 120.0
    step_multiple: float = 20.0
    start_seconds: float = 1800.0
    evaluation_seconds: float = 1800.0
    job_seconds: float = 4 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Standstill:
    """A worker that holds work and said nothing for longer than it may. `reason` is a sentence."""

    worker: str
    reason: str


class Liveness:
    """Hears what the executor reports and remembers the last sign of life of every worker and every slice.

    The slices of a worker take turns, so one that waits says nothing while its neighbours do: a worker stands still if
    none of its slices says anything, for longer than any of them may take for a turn. Where several workers hold work
    and nobody at all says anything, the network or a disk that they share is to blame: all have the limit of a start.
    """

    def __init__(self, patience: Patience = Patience(), clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self._clock = clock
        self._looked_at = clock()
        self._watched_seconds = 0.0
        self._heard_at: dict[str, float] = {}
        self._last: dict[Token, Progress | None] = {}

    def hear(self, events: Iterable[ExecutorEvent]) -> None:
        """Take note of all signs of life. Call it often, also without any."""
        now = self._now()
        for event in events:
            if isinstance(event, WorkerGone):
                self._heard_at.pop(event.worker, None)
                continue
            self._heard_at[event.worker] = now
            match event:
                case SliceProgress():
                    self._last[event.progress.slice_id, event.progress.attempt] = event.progress
                case SliceEnded():
                    self._last.pop((event.result.slice_id, event.result.attempt), None)
                case WorkerReady() | JobEnded():
                    pass

    def adopt(self, tokens: Iterable[Token]) -> None:
        """These attempts began under an earlier dispatcher; nobody knows how far they are."""
        for token in tokens:
            self._last.setdefault(token, None)

    def has_begun(self, token: Token) -> bool:
        """Whether the worker has said anything of the attempt, which may else still be queued."""
        return token in self._last

    def last_words(self, token: Token) -> str:
        """Where the attempt was when it was last heard of, for the end of a sentence."""
        progress = self._last.get(token)
        if progress is None:
            return "nothing was heard of the slice"
        return f"last heard of {progress.phase} at {progress.examples_seen} examples (step {progress.step})"

    def forget(self, tokens: Iterable[Token]) -> None:
        """These attempts have ended."""
        for token in tokens:
            self._last.pop(token, None)

    def look(self, slices: Mapping[str, Collection[Token]], busy: Collection[str]) -> list[Standstill]:
        """Those that stand still of the workers with `slices` and those `busy` with a job; told once a limit each."""
        now = self._now()
        held = slices.keys() | set(busy)
        self._heard_at = {worker: at for worker, at in self._heard_at.items() if worker in held}
        for worker in held:
            self._heard_at.setdefault(worker, now)
        all_quiet = len(held) > 1 and now - max(self._heard_at.values()) > self._patience.floor_seconds
        found = []
        for worker in sorted(held):
            quiet_seconds = now - self._heard_at[worker]
            limit_seconds, doing = self._limit(slices.get(worker, ()))
            if all_quiet:
                limit_seconds = max(limit_seconds, self._patience.start_seconds)
            if quiet_seconds > limit_seconds:
                self._heard_at[worker] = now
                reason = (
                    f"worker {worker} made no progress for {quiet_seconds:.0f} s {doing} (limit {limit_seconds:.0f} s)"
                )
                found.append(Standstill(worker=worker, reason=reason))
        return found

    def _limit(self, tokens: Collection[Token]) -> tuple[float, str]:
        """(seconds, doing what) of the slice that may take the longest."""
        if not tokens:
            return self._patience.job_seconds, "on a job"
        begun = [(*self._limit_of(self._last[token]), token) for token in tokens if token in self._last]
        if not begun:
            return self._patience.floor_seconds, f"before it began slice {min(tokens)[0]}"
        limit_seconds, phase, token = max(begun)
        return limit_seconds, f"{phase} slice {token[0]}"

    def _limit_of(self, progress: Progress | None) -> tuple[float, str]:
        patience = self._patience
        match None if progress is None else progress.phase:
            case None | "starting":
                return patience.start_seconds, "starting"
            case "evaluating":
                return patience.evaluation_seconds, "evaluating"
        assert progress is not None
        return max(patience.floor_seconds, patience.step_multiple * progress.slowest_step_seconds), "training"

    def _now(self) -> float:
        """Seconds in which something could have been heard."""
        now = self._clock()
        self._watched_seconds += min(now - self._looked_at, _LONGEST_GAP_SECONDS)
        self._looked_at = now
        return self._watched_seconds
