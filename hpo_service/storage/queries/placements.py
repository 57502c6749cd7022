"""What is read and written when many slices are handed out at once."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import func, insert, select, text
from sqlalchemy.orm import Session

from hpo_service.storage.tables import Attempt, Slice

_NEXT_IDS = text(
    "SELECT nextval(pg_get_serial_sequence('hpo.slices', 'id')) FROM generate_series(1, :count) ORDER BY 1"
)


def slice_ids(session: Session, count: int) -> list[int]:
    """Ids that no slice and no job has or had, in order."""
    return list(session.scalars(_NEXT_IDS, {"count": count})) if count else []


def snapshots_by_trial(
    session: Session, study_id: int, trial_numbers: Collection[int]
) -> dict[int, list[dict[str, Any]]]:
    """Every snapshot known of these trials, newest first: those inside an open slice before those of rungs below."""
    if not trial_numbers:
        return {}
    query = (
        select(Slice.trial_number, Slice.snapshots)
        .where(Slice.study_id == study_id, Slice.trial_number.in_(trial_numbers))
        .where(func.jsonb_array_length(Slice.snapshots) > 0)
        .order_by(Slice.trial_number, Slice.until_examples.desc())
    )
    found: dict[int, list[dict[str, Any]]] = {}
    for number, snapshots in session.execute(query):
        found.setdefault(number, []).extend(snapshots)
    return found


def add(session: Session, slices: Sequence[Mapping[str, Any]], attempts: Sequence[Mapping[str, Any]]) -> None:
    """Write new slices, then attempts, as columns by name."""
    for table, rows in ((Slice, slices), (Attempt, attempts)):
        if rows:
            session.execute(insert(table), rows)
