"""What is to be done on the thread that polls: what other threads hand to it, and what is due at some time."""

import heapq
import itertools
import queue
import time
from collections.abc import Callable

Action = Callable[[], None]


class Actions:
    """`post` and `wake` may be called on any thread; everything else on the one that works them off."""

    def __init__(self) -> None:
        self._posted: queue.Queue[Action | None] = queue.Queue()
        self._timers: list[tuple[float, int, Action]] = []
        self._order = itertools.count()

    def post(self, action: Action) -> None:
        """Do it soon."""
        self._posted.put(action)

    def later(self, seconds: float, action: Action) -> None:
        """Do it then."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), action))

    def wake(self) -> None:
        """End a wait."""
        self._posted.put(None)

    def work_off(self, wait_seconds: float) -> bool:
        """Do what was posted and what is due; waits for the first of it. False if `wake` was called."""
        if self._timers:
            wait_seconds = min(wait_seconds, max(0.0, self._timers[0][0] - time.monotonic()))
        woken = False
        try:
            action = self._posted.get(timeout=wait_seconds) if wait_seconds > 0 else self._posted.get_nowait()
            while True:
                if action is None:
                    woken = True
                else:
                    action()
                action = self._posted.get_nowait()
        except queue.Empty:
            pass
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()
        return not woken
