"""The database's clock, without asking it every time."""

import time
from datetime import datetime, timedelta

from sqlalchemy.orm import Session, sessionmaker

from hpo_service.storage.queries import dispatch

_ASK_EVERY_SECONDS = 10.0


class DatabaseClock:
    """Asks now and then, and counts on from the answer."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self._known: tuple[datetime, float] | None = None

    def now(self) -> datetime:
        """The database's time."""
        if self._known is None or time.monotonic() - self._known[1] > _ASK_EVERY_SECONDS:
            with self._sessions() as session:
                self._known = dispatch.database_now(session), time.monotonic()
        then, at = self._known
        return then + timedelta(seconds=time.monotonic() - at)
