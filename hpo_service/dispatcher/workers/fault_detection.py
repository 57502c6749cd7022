"""Which workers are to be trusted no more, from what the executor reports of them."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hpo_service.core.study_rules import Cause
from hpo_service.executors.base import ExecutorEvent, SliceEnded, WorkerGone, WorkerReady
from trainer.spec import Outcome, SliceResult, is_device_fault

#: So many different slices in a row broke on a worker, while another worker finished some.
_BROKEN_SLICES = 3
#: So many attempts in a row, of at least two slices, broke on the only worker there is. Nobody can say whether it is
#: to blame, so it rests in between, the longer the more there were: 5, 10, 20, 40 s.
_LONE_ERRORS = 5
_FIRST_REST_SECONDS = 5.0
#: So many workers in a row ended at the same places before they were ready.
_DEATHS_AT_START = 5

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A worker that is to be quarantined, with its places. `reason` is a sentence.

    `broken`: its device is, so what it runs now cannot be trusted either.
    """

    worker: str
    reason: str
    places: tuple[str, ...]
    broken: bool = False


@dataclass(frozen=True)
class _Broken:
    """An attempt that ended in an infra error, the `number`-th event of all."""

    slice_id: int
    number: int


class Faults:
    """Counts what went wrong at every worker's places, since workers come and go there. Memory only."""

    def __init__(
        self, first_rest_seconds: float = _FIRST_REST_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._first_rest_seconds = first_rest_seconds
        self._clock = clock
        self._rests_until = float("-inf")
        self._alone: list[int] = []  #: slices of the attempts that broke in a row on the only worker
        self.found: list[Fault] = []  #: not yet acted upon
        self._places: dict[str, tuple[str, ...]] = {}
        self._events = 0
        self._broken: dict[tuple[str, ...], list[_Broken]] = {}
        self._finished: dict[tuple[str, ...], int] = {}
        self._deaths: Counter[tuple[str, ...]] = Counter()

    def hear(self, events: Iterable[ExecutorEvent]) -> None:
        """Every event once, in order."""
        for event in events:
            self._events += 1
            match event:
                case WorkerReady():
                    if any(places != event.places for places in self._places.values()):
                        self._end_row()
                    self._places[event.worker] = event.places
                    self._deaths.pop(event.places, None)
                case WorkerGone():
                    self._hear_end(event)
                case SliceEnded():
                    self._hear_result(event.worker, event.result)

    @property
    def resting(self) -> bool:
        """Whether the only worker is to be given nothing for a while."""
        return self._clock() < self._rests_until

    def forgive(self, places: Iterable[str]) -> None:
        """These places were released: what went wrong there is past."""
        released = set(places)
        self._end_row()
        for known in [*self._broken, *self._deaths]:
            if released.intersection(known):
                self._broken.pop(known, None)
                self._deaths.pop(known, None)

    def _hear_end(self, event: WorkerGone) -> None:
        if self._places.pop(event.worker, None) is not None or event.cause is not Cause.WORKER_DIED:
            return
        self._deaths[event.places] += 1
        if self._deaths[event.places] >= _DEATHS_AT_START and event.places:
            why = f"{_DEATHS_AT_START} workers in a row ended before they were ready, the last one: {event.reason}"
            self._find(event.worker, event.places, why)
            del self._deaths[event.places]

    def _hear_result(self, worker: str, result: SliceResult) -> None:
        places = self._places.get(worker, ())
        fault = next((notice for notice in result.notices if is_device_fault(notice)), None)
        if fault is not None:
            self._find(worker, places, f"its device is faulty: {fault.message}", broken=True)
        key = places or (worker,)
        if result.outcome is not Outcome.INFRA_ERROR:
            self._end_row()
            if result.outcome is Outcome.DONE:
                self._finished[key] = self._events
            self._broken.pop(key, None)
            return
        streak = [broken for broken in self._broken.get(key, []) if broken.slice_id != result.slice_id]
        streak.append(_Broken(result.slice_id, self._events))
        self._broken[key] = streak
        others = max((number for other, number in self._finished.items() if other != key), default=0)
        if len(streak) >= _BROKEN_SLICES and others > streak[0].number:
            why = f"{len(streak)} slices in a row broke on it while others worked, the last one: {result.message}"
            self._find(worker, places, why)
            del self._broken[key]
        elif all(known == places for known in self._places.values()):
            self._hear_alone(worker, places, result)

    def _hear_alone(self, worker: str, places: tuple[str, ...], result: SliceResult) -> None:
        """An attempt broke, and there is no other worker to compare with."""
        self._alone.append(result.slice_id)
        errors = len(self._alone)
        if errors >= _LONE_ERRORS and len(set(self._alone)) > 1 and places:
            why = f"{errors} attempts in a row broke on it, the only worker, the last one: {result.message}"
            self._find(worker, places, why)
            self._end_row()
            return
        rest_seconds = self._first_rest_seconds * 2 ** (min(errors, _LONE_ERRORS - 1) - 1)
        self._rests_until = self._clock() + rest_seconds
        log.warning("%d attempts in a row broke on the only worker; it rests for %g s", errors, rest_seconds)

    def _end_row(self) -> None:
        self._alone.clear()
        self._rests_until = float("-inf")

    def _find(self, worker: str, places: tuple[str, ...], reason: str, *, broken: bool = False) -> None:
        if not any(fault.worker == worker for fault in self.found):
            self.found.append(Fault(worker=worker, reason=reason, places=places, broken=broken))
