"""How many streams one key may hold open at once: each asks the database again and again."""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request

from hpo_service.api.http.dependencies import PrincipalDependency
from hpo_service.core.errors import TooManyRequests

MOST = 100
"""Of one key, with the browsers that it let in, at one replica of the API."""
_RETRY_AFTER_SECONDS = 10


class OpenStreams:
    """The streams that are open now, by key. Of the event loop's thread only."""

    def __init__(self) -> None:
        self._open: Counter[int] = Counter()

    def begin(self, key_id: int) -> None:
        """Raises TooManyRequests if the key has as many as it may."""
        if self._open[key_id] >= MOST:
            raise TooManyRequests(
                f"this API key has {MOST} streams open at this replica, which is the most; close one, or share one.",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        self._open[key_id] += 1

    def end(self, key_id: int) -> None:
        """One that was begun is over."""
        self._open[key_id] -= 1
        if self._open[key_id] <= 0:
            del self._open[key_id]

    def __len__(self) -> int:
        return self._open.total()


async def _counted(request: Request, caller: PrincipalDependency) -> AsyncIterator[None]:
    streams: OpenStreams = request.app.state.open_streams
    streams.begin(caller.key_id)
    try:
        yield
    finally:
        streams.end(caller.key_id)


CountedStream = Annotated[None, Depends(_counted)]
"""Of a route that answers with a stream: it counts as long as it lasts."""
