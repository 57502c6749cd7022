"""One sink's loop: read what was committed after its cursor, tell it, move the cursor; again and again until told."""

import logging
import random
from threading import Event

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from hpo_service.integrations.base import Sink, SinkAway
from hpo_service.storage.database import session_factory
from hpo_service.storage.queries import outbox

log = logging.getLogger(__name__)

_BATCH_EVENTS = 500
_POLL_SECONDS = 1.0
_STANDBY_SECONDS = 5.0
_DATABASE_PAUSE_SECONDS = 2.0
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
#: so often an outage is logged: its first failure, and each time after so many more
_LOGGED_FAILURES = 30


class Delivery:
    """Tells one sink. Of several processes that try, one tells; another goes on when it is gone."""

    def __init__(self, engine: Engine, sink: Sink, *, poll_seconds: float = _POLL_SECONDS) -> None:
        self._engine = engine
        self._sessions = session_factory(engine)
        self._sink = sink
        self._poll_seconds = poll_seconds
        self.failures = 0  #: in a row

    def run(self, stop: Event) -> None:
        """Until `stop` is set. Outages of the receiver and of the database are ridden out."""
        while not stop.is_set():
            try:
                with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as lock:
                    lock.detach()  # closed afterwards, not kept: the lock is the connection's
                    while not stop.is_set():
                        mine = outbox.hold(lock, self._sink.name)
                        stop.wait(self.turn() if mine else _STANDBY_SECONDS)
            except DBAPIError as error:
                log.warning("the database does not answer: %s", str(error).splitlines()[0])
                stop.wait(_DATABASE_PAUSE_SECONDS)

    def turn(self) -> float:
        """Tell what is new, one batch; the seconds to wait before the next."""
        try:
            more = self._tell()
        except SinkAway as error:
            return self._pause_seconds(error)
        if self.failures:
            log.info("%s takes events again", self._sink.name)
            self.failures = 0
        return 0.0 if more else self._poll_seconds

    def _tell(self) -> bool:
        """True if more waits."""
        name = self._sink.name
        with self._sessions.begin() as session:
            cursor = outbox.open_cursor(session, name, from_now=self._sink.from_now)
            events = outbox.events_after(session, cursor.last_event_id, _BATCH_EVENTS)
        told = cursor.last_event_id
        for event_id in self._sink.take(cursor.identity, events) if events else ():
            with self._sessions.begin() as session:
                if not outbox.advance(session, name, told, event_id):
                    log.warning("another process tells %s as well; reading again where it stands", name)
                    return True
            told = event_id
        return len(events) == _BATCH_EVENTS

    def _pause_seconds(self, error: SinkAway) -> float:
        longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0 ** min(self.failures, 16))
        if self.failures % _LOGGED_FAILURES == 0:
            log.warning("%s does not take events, they wait: %s", self._sink.name, error)
        self.failures += 1
        return random.uniform(0.5, 1.0) * longest  # noqa: S311 (spreads retries, keeps no secret)
