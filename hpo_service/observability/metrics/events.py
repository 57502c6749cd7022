"""What is counted from events as they come. It begins at 0 with each process, as counters may."""

from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from sqlalchemy import Row

from hpo_service.core.messages import EventKind
from hpo_service.core.study_rules import Cause
from hpo_service.storage.queries.metrics import Figures
from trainer.spec import Outcome

_TRIAL_SECONDS = (10, 30, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600, 3 * 24 * 3600, 7 * 24 * 3600)
_QUEUE_SECONDS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600)
_ASK_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)
_KINDS = frozenset(map(str, EventKind))
_UNKNOWN = "unknown"  #: what a newer dispatcher tells
_ENDS = {
    str(EventKind.TRIAL_COMPLETED): "complete",
    str(EventKind.TRIAL_PRUNED): "pruned",
    str(EventKind.TRIAL_FAILED): "failed",
}


class EventCounts:
    """Reads each event once. What happened before the first look is not counted."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._last_id: int | None = None
        self._events = Counter("hpo_events", "Events.", ["kind"], registry=registry)
        self._finished = Counter(
            "hpo_trials_finished",
            "Trials that ended; `reason` is the outcome of one that failed.",
            ["outcome", "reason"],
            registry=registry,
        )
        self._retried = Counter("hpo_slices_retried", "Slices that are tried again.", ["cause"], registry=registry)
        self._trial_seconds = Histogram(
            "hpo_trial_duration_seconds",
            "From a trial's first slice to its end, pauses included.",
            buckets=_TRIAL_SECONDS,
            registry=registry,
        )
        self._queue_seconds = Histogram(
            "hpo_trial_queue_seconds",
            "From when a study was posted, or an attempt was lost, until a worker got the slice.",
            buckets=_QUEUE_SECONDS,
            registry=registry,
        )
        self._ask_seconds = Histogram(
            "hpo_sampler_ask_seconds",
            "For a decision what to run next.",
            buckets=_ASK_SECONDS,
            registry=registry,
        )
        self._begin()

    def read(self, figures: Figures) -> None:
        """Count what happened since the last time; at most so many at once, the rest the next time."""
        if self._last_id is None:
            self._last_id = figures.last_event()
            return
        rows = figures.events_after(self._last_id)
        for row in rows:
            self._count(row)
        self._last_id = _last_id(rows, self._last_id)

    def _begin(self) -> None:
        """Every label at 0, so that the first one of a kind is an increase."""
        for kind in EventKind:
            self._events.labels(kind=str(kind))
        self._finished.labels(outcome="complete", reason="")
        self._finished.labels(outcome="pruned", reason="")
        for reason in Outcome:
            if reason is not Outcome.DONE:
                self._finished.labels(outcome="failed", reason=str(reason))
        for cause in Cause:
            self._retried.labels(cause=str(cause))

    def _count(self, row: Row[Any]) -> None:
        self._events.labels(kind=row.kind if row.kind in _KINDS else _UNKNOWN).inc()
        if row.kind in _ENDS:
            reason = row.outcome if row.kind == EventKind.TRIAL_FAILED else ""
            self._finished.labels(outcome=_ENDS[row.kind], reason=reason).inc()
            if row.seconds is not None:
                self._trial_seconds.observe(row.seconds)
        elif row.kind == EventKind.SLICE_RETRIED:
            self._retried.labels(cause=row.cause or "").inc()
        elif row.kind == EventKind.SLICE_STARTED:
            for seconds, histogram in (
                (row.queue_seconds, self._queue_seconds),
                (row.ask_seconds, self._ask_seconds),
            ):
                if seconds is not None:
                    histogram.observe(seconds)


def _last_id(rows: Sequence[Row[Any]], before: int) -> int:
    return int(rows[-1].id) if rows else before
