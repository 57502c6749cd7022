"""What happened, in the log: those of the committed events that an operator looks for, with the ids behind them."""

import logging
from collections.abc import Iterable

from hpo_service.core.messages import EventKind
from hpo_service.storage.tables import Event

log = logging.getLogger(__name__)

#: said of every slice, and again at the trial's end; the tables have them
_UNTOLD = frozenset(
    {EventKind.TRIAL_REPORTED, EventKind.TRIAL_PAUSED, EventKind.SLICE_PROGRESS, EventKind.TRIAL_QUEUED}
)
_BAD = frozenset(
    {
        EventKind.TRIAL_FAILED,
        EventKind.SLICE_RETRIED,
        EventKind.SNAPSHOT_DISCARDED,
        EventKind.INTENT_REFUSED,
        EventKind.WORKER_LOST,
        EventKind.WORKER_QUARANTINED,
        EventKind.WORKER_REFUSED,
        EventKind.WORKER_NOT_REPEATABLE,
    }
)
_IDS = ("slice_id", "attempt", "worker", "node", "outcome", "cause", "state", "epoch")


def write(events: Iterable[Event]) -> None:
    """A line each."""
    for event in events:
        kind = EventKind(event.kind)
        level = logging.WARNING if kind in _BAD else logging.INFO
        if kind in _UNTOLD or not log.isEnabledFor(level):
            continue
        ids = {name: event.payload[name] for name in _IDS if event.payload.get(name) is not None}
        if event.study_id is not None:
            ids["study_id"] = event.study_id
        if event.trial_number is not None:
            ids["trial_number"] = event.trial_number
        message = event.payload.get("message")
        log.log(level, "%s%s", kind.value, f": {message}" if message else "", extra=ids)
