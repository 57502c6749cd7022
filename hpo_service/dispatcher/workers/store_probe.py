"""Which workers see the snapshot store: those that found the marker which the leading dispatcher left in it."""

import logging
import time
from collections.abc import Sequence

from sqlalchemy.orm import Session

from hpo_service.core.messages import EventKind
from hpo_service.core.study_rules import Cause
from hpo_service.executors.base import Executor, WorkerReady
from hpo_service.storage.queries import dispatch
from hpo_service.storage.tables import DEFAULT_PROJECT_ID
from trainer.common.errors import SnapshotError
from trainer.snapshots.stores import Store
from trainer.snapshots.stores.location import is_url
from trainer.snapshots.stores.marker import leave_marker, read_marker

log = logging.getLogger(__name__)

_TRY_AGAIN_SECONDS = 5.0


class StoreProof:
    """What this dispatcher left in the store, and the workers that did not find it. They get no slices.

    Without a store nothing is left and every worker passes.
    """

    def __init__(self, store: Store | None) -> None:
        self._store = store
        self._epoch: int | None = None
        self._known: frozenset[str] = frozenset()
        self._try_at = float("-inf")
        self._told: set[tuple[str, str]] = set()

    def leave(self, epoch: int | None) -> None:
        """Leave a marker, once for each epoch. While that is impossible, those of earlier leaders count."""
        if self._store is None or epoch is None or epoch == self._epoch or time.monotonic() < self._try_at:
            return
        try:
            self._known = leave_marker(self._store, epoch).known()
            self._epoch = epoch
        except (OSError, SnapshotError) as error:
            self._try_at = time.monotonic() + _TRY_AGAIN_SECONDS
            log.error("no marker can be left in the snapshot store %s: %s", self._store.location, error)
            self._known = _left_before(self._store)

    def refusals(self, ready: Sequence[WorkerReady]) -> dict[str, str]:
        """By name of the worker, why it gets no slices: a sentence."""
        if self._store is None:
            return {}
        location = self._store.location
        return {event.worker: _refusal(event, location) for event in ready if event.ready.marker not in self._known}

    def note(self, session: Session, ready: Sequence[WorkerReady]) -> None:
        """Write an event for every node that cannot be used, once until it can."""
        refusals = self.refusals(ready)
        new = {_reason(event): event for event in ready if event.worker in refusals}
        for event in (new[reason] for reason in new.keys() - self._told):
            payload = {"worker": event.worker, "node": event.node, "message": refusals[event.worker]}
            dispatch.add_event(session, DEFAULT_PROJECT_ID, None, EventKind.WORKER_REFUSED, payload)

    def end_refused(self, executor: Executor, ready: Sequence[WorkerReady]) -> None:
        """After the commit: end them. Those that take their places try again."""
        refusals = self.refusals(ready)
        proven = {event.node for event in ready if event.worker not in refusals}
        self._told = {(node, problem) for node, problem in self._told if node not in proven}
        for event in ready:
            if event.worker in refusals:
                self._told.add(_reason(event))
                log.error("%s", refusals[event.worker])
                executor.kill(event.worker, refusals[event.worker], Cause.WORKER_ENDED)


def _reason(event: WorkerReady) -> tuple[str, str]:
    return event.node, event.ready.marker_problem


def _refusal(event: WorkerReady, location: str) -> str:
    where = f" on node {event.node}" if event.node else ""
    why = event.ready.marker_problem or "it finds the marker of another one"
    remedy = "give it network and credentials there" if is_url(location) else "mount it there or use an object store"
    return f"worker {event.worker}{where} does not see the snapshot store {location}: {why}; {remedy}"


def _left_before(store: Store) -> frozenset[str]:
    try:
        return read_marker(store).known()
    except (OSError, SnapshotError):
        return frozenset()
