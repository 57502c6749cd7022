"""How soon a worker follows one that died: later each time, until one lives for a while."""

import time

_FIRST_SECONDS = 0.5
_LONGEST_SECONDS = 30.0
_HEALTHY_SECONDS = 60.0


class Backoff:
    """Of the workers of a cluster, all together."""

    def __init__(self) -> None:
        self._deaths = 0
        self._over_at = 0.0

    def died(self, lived_seconds: float) -> None:
        """A worker died by itself after so long."""
        self._deaths = 1 if lived_seconds > _HEALTHY_SECONDS else self._deaths + 1
        delay = min(_FIRST_SECONDS * 2 ** (self._deaths - 1), _LONGEST_SECONDS)
        self._over_at = time.monotonic() + delay

    def is_over(self, now: float) -> bool:
        """Whether the next worker may start; `now` is monotonic."""
        return now >= self._over_at
