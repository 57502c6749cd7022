"""The fake executor in real time, and what is measured on it."""

import heapq
import math
import random
import time
from collections import deque
from collections.abc import Sequence

from hpo_service.executors.base import ExecutorEvent, SliceEnded, Work
from hpo_service.executors.fake import FakeExecutor
from trainer.spec import Slice


def loss_of(work: Slice) -> float:
    """A smooth bowl around a learning rate of 3e-4 that sinks with the examples, with some noise of the trial's own."""
    parameters = work.trial.parameters
    distance = abs(math.log10(parameters.learning_rate) - math.log10(3e-4))
    noise = random.Random(work.snapshot_dir).gauss(0, 0.02)
    return 2.0 + 0.3 * distance + 0.01 * abs(parameters.lora_r - 8) + 5 / math.sqrt(work.until_examples) + noise


SLOTS_A_WORKER = 8


class TimedExecutor(FakeExecutor):
    """Slices take `mean_seconds`, half of it more or less; they end by a schedule, without threads.

    `turnarounds_seconds`: from the end of a slice, by the schedule, until the next one is submitted in its place.
    """

    def __init__(self, running: int, mean_seconds: float, total_examples: int) -> None:
        super().__init__(
            loss_of, workers=running // SLOTS_A_WORKER, slots=SLOTS_A_WORKER, total_examples=total_examples
        )
        self._most = running
        self._mean_seconds = mean_seconds
        self._random = random.Random(1)
        self._schedule: list[tuple[float, int, str, Slice]] = []
        self._freed: deque[float] = deque()
        self.turnarounds_seconds: list[float] = []
        self.ended = 0
        self.begun = 0

    def submit(self, work: Work, worker: str) -> None:
        """Put its end on the schedule."""
        assert isinstance(work, Slice)
        now = time.monotonic()
        self._held[worker].append(work)
        self.begun += 1
        seconds = self._mean_seconds * self._random.uniform(0.5, 1.5)
        if self.begun <= self._most:
            seconds *= self._random.random()  # the first ones of all workers do not end together
        heapq.heappush(self._schedule, (now + seconds, self.begun, worker, work))
        if self._freed:
            self.turnarounds_seconds.append(now - self._freed.popleft())

    def poll(self, timeout_seconds: float) -> Sequence[ExecutorEvent]:
        """Waits no longer than until the next slice ends."""
        if self._schedule:
            timeout_seconds = max(0.0, min(timeout_seconds, self._schedule[0][0] - time.monotonic()))
        events = list(super().poll(timeout_seconds))
        self._end_slices()
        events += self._events
        self._events.clear()
        return events

    def _room(self, worker: str, prefetch: bool) -> int:
        """No slice here wants a worker for itself; looking at each would cost what no other executor costs."""
        return max(0, SLOTS_A_WORKER + int(prefetch) - len(self._held[worker]))

    def running(self) -> int:
        """Slices that are held."""
        return len(self._schedule)

    def forget_turnarounds(self) -> None:
        """Measure from now on."""
        self.turnarounds_seconds.clear()
        self.ended = 0

    def _end_slices(self) -> None:
        now = time.monotonic()
        while self._schedule and self._schedule[0][0] <= now:
            ended_at, _, worker, work = heapq.heappop(self._schedule)
            self._held[worker].remove(work)
            self._freed.append(ended_at)
            self.ended += 1
            self._events.append(SliceEnded(worker=worker, result=self._result(work)))
