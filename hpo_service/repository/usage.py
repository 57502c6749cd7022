"""What attempts consumed, summed in the database as `trainer.spec.UsageSums` says, lost and running ones included."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Float, SQLColumnExpression, and_, case, cast, func, null, select
from sqlalchemy.orm import Session

from hpo_service.tables import Attempt, Slice
from trainer.spec import Usage, UsageSums

SECONDS = (
    Attempt.load_seconds
    + Attempt.data_seconds
    + Attempt.train_seconds
    + Attempt.evaluate_seconds
    + Attempt.snapshot_seconds
)
DEVICE_SECONDS = SECONDS * Attempt.devices
_TRAINED_SECONDS = Attempt.train_seconds + Attempt.data_seconds
_OF_SLICE = and_(Attempt.slice_id == Slice.id, Attempt.project_id == Slice.project_id)
_WHOLE = ("examples", "steps", "tokens")
_REAL = (
    "flops",
    "train_flops",
    "train_hardware_flops",
    "load_seconds",
    "data_seconds",
    "train_seconds",
    "evaluate_seconds",
    "snapshot_seconds",
)


def usage_by_study(session: Session, project_id: int, study_ids: Sequence[int]) -> dict[int, UsageSums]:
    """What each study consumed; studies without attempts are left out."""
    query = select(Slice.study_id.label("group"), *_sums()).join(Attempt, _OF_SLICE)
    query = query.where(Slice.project_id == project_id, Slice.study_id.in_(study_ids)).group_by(Slice.study_id)
    return {row["group"]: _read(row) for row in map(dict, session.execute(query).mappings())}


def usage_by_trial(
    session: Session, project_id: int, study_id: int, trial_numbers: Sequence[int]
) -> dict[int, UsageSums]:
    """What each of these trials consumed, by trial number; trials without attempts are left out."""
    query = select(Slice.trial_number.label("group"), *_sums()).join(Attempt, _OF_SLICE)
    query = query.where(Slice.project_id == project_id, Slice.study_id == study_id)
    query = query.where(Slice.trial_number.in_(trial_numbers)).group_by(Slice.trial_number)
    return {row["group"]: _read(row) for row in map(dict, session.execute(query).mappings())}


def usage_of(attempt: Attempt) -> Usage:
    """What one attempt consumed."""
    return Usage(**{name: getattr(attempt, name) for name in Usage.model_fields})


def total(column: SQLColumnExpression[Any]) -> ColumnElement[float]:
    """The sum of a column as a float, 0 where there are no rows."""
    return func.coalesce(func.sum(cast(column, Float(53))), 0.0)


def _sums() -> list[ColumnElement[Any]]:
    peak, joules = Attempt.peak_flops_per_second, Attempt.energy_joules
    available = _TRAINED_SECONDS * Attempt.devices * func.coalesce(peak, 0.0)
    return [
        *(total(getattr(Attempt, name)).label(name) for name in (*_WHOLE, *_REAL)),
        total(DEVICE_SECONDS).label("device_seconds"),
        func.coalesce(func.max(Attempt.peak_memory_bytes), 0).label("peak_memory_bytes"),
        _known(joules.is_(None) & (SECONDS > 0), total(joules)).label("energy_joules"),
        _known(peak.is_(None) & (_TRAINED_SECONDS > 0), total(available)).label("available_flops"),
    ]


def _known(unknown: ColumnElement[bool], value: ColumnElement[float]) -> ColumnElement[Any]:
    """The sum, or null if any attempt does not know its part."""
    return case((func.coalesce(func.bool_or(unknown), False), null()), else_=value)


def _read(row: dict[str, Any]) -> UsageSums:
    whole = {name: int(row[name]) for name in _WHOLE}
    return UsageSums(**{name: row[name] for name in row if name not in ("group", *_WHOLE)}, **whole)
