"""Slices that end the workers on which they run: the second time, such a slice is not tried again."""

from collections.abc import Mapping
from datetime import UTC
from typing import Any

from sqlalchemy.orm import Session

from hpo_service.core.study_rules import Cause
from hpo_service.storage.queries import attempts

#: ends of a worker that one of its slices may have caused
KILLING_CAUSES = frozenset({Cause.WORKER_DIED, Cause.NO_PROGRESS})
_POISON_KILLS = 2


def kills(failures_by_cause: Mapping[str, Any]) -> int:
    """How many workers ended that may have been ended by the slice."""
    return sum(int(failures_by_cause.get(str(cause), 0)) for cause in KILLING_CAUSES)


def is_poison(kills_before: int, cause: Cause | None, *, alone: bool) -> bool:
    """Whether the slice has ended another worker, and this time there was no other slice that could have done it.

    After the first time a slice runs alone, so that an innocent neighbour of a poisonous one is found to be innocent.
    """
    return cause in KILLING_CAUSES and alone and kills_before + 1 >= _POISON_KILLS


def evidence(session: Session, slice_id: int) -> str:
    """Which workers the slice ended, when and how, and how far it was: for people."""
    found = attempts.attempts_with_causes(session, slice_id, [str(cause) for cause in KILLING_CAUSES])
    parts = [
        f"attempt {row.attempt} on {row.worker or 'a worker'} at {row.finished_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} "
        f"UTC: {row.message}"
        for row in found
    ]
    return f"slice {slice_id} is poison, {len(parts)} workers ended while they ran it: {'; '.join(parts)}"
