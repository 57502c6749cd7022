"""The sink that keeps runs at a tracker up to date."""

import logging
from collections.abc import Iterator, Sequence

from sqlalchemy.orm import Session, sessionmaker

from hpo_service.integrations.base import SinkRefused, Tracker
from hpo_service.integrations.registrations import read_registrations
from hpo_service.integrations.run_updates import read_updates
from hpo_service.integrations.runs import read
from hpo_service.storage.queries.outbox import OutboxEvent
from trainer.snapshots.stores import Store

log = logging.getLogger(__name__)


class TrackingSink:
    """One run a study, one below it a trial. Tells everything that ever happened, however late it is switched on."""

    from_now = False

    def __init__(self, sessions: sessionmaker[Session], tracker: Tracker, *, store: Store, keep_best: int) -> None:
        self._sessions = sessions
        self._tracker = tracker
        self._store = store
        self._keep_best = keep_best

    @property
    def name(self) -> str:
        """The tracker's."""
        return self._tracker.name

    def take(self, outbox: str, events: Sequence[OutboxEvent]) -> Iterator[int]:
        """All events of a batch that are about the same run are told at once; promotions are told after the runs."""
        with self._sessions() as session:
            reading = read(session, outbox, events, store=self._store, keep_best=self._keep_best)
            updates, registrations = read_updates(reading, events), read_registrations(reading, events)
        for update in updates:
            try:
                self._tracker.update(update)
            except SinkRefused as error:
                log.error("%s refuses a part of run %s, which it goes without: %s", self.name, update.run.key, error)
        for registration in registrations:
            try:
                self._tracker.register(registration)
            except SinkRefused as error:
                log.error("%s refuses a version of model %s: %s", self.name, registration.name, error)
        yield events[-1].id
