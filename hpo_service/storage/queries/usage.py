"""What attempts consumed, as `trainer.spec.UsageSums` says, lost ones included; running ones count when they end."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Float, RowMapping, SQLColumnExpression, and_, case, cast, func, null, select, true
from sqlalchemy.orm import Session, aliased

from hpo_service.core.study_rules import Spent
from hpo_service.storage.optuna.tables import trials
from hpo_service.storage.tables import Attempt, Slice, Study, StudyUsage
from trainer.spec import Usage, UsageSums


def _told_seconds(attempt: type[Attempt]) -> ColumnElement[float]:
    phases = ("load_seconds", "data_seconds", "train_seconds", "evaluate_seconds", "snapshot_seconds")
    told: ColumnElement[float] = sum((getattr(attempt, phase) for phase in phases[1:]), getattr(attempt, phases[0]))
    return told


def _seconds(attempt: type[Attempt]) -> ColumnElement[float]:
    return _told_seconds(attempt) + attempt.lost_seconds


SECONDS = _seconds(Attempt)
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
    "lost_seconds",
)
_BESIDE = ("cost_usd", "unknown_energies", "unknown_peaks")
_KEPT = (*UsageSums.model_fields, *_BESIDE)


@dataclass(frozen=True, kw_only=True)
class Consumed:
    """By a study: what its budget counts, and all sums."""

    spent: Spent
    usage: UsageSums


def consumed_by_study(session: Session, project_id: int, study_ids: Sequence[int]) -> dict[int, Consumed]:
    """What each study has consumed, from the sums that are kept of it. Trials count once they have begun."""
    begun = (
        select(func.count(trials.c.datetime_start))
        .where(trials.c.study_id == Study.optuna_study_id)
        .correlate(Study)
        .scalar_subquery()
    )
    kept = [column for column in StudyUsage.__table__.c if column.key in _KEPT]
    of_study = and_(StudyUsage.study_id == Study.id, StudyUsage.project_id == Study.project_id)
    query = select(Study.id, begun.label("trials"), *kept).outerjoin(StudyUsage, of_study)
    query = query.where(Study.project_id == project_id, Study.id.in_(study_ids))
    return {row["id"]: _consumed(row) for row in session.execute(query).mappings()}


@dataclass(frozen=True, kw_only=True)
class Dispatched:
    """How often a trial was on a worker, how long in all, what that cost, and all sums."""

    attempts: int = 0
    seconds: float = 0.0
    usd: float = 0.0
    usage: UsageSums = field(default_factory=UsageSums)


def dispatched_by_trial(
    session: Session, project_id: int, study_id: int, trial_numbers: Sequence[int]
) -> dict[int, Dispatched]:
    """What was dispatched for each of these trials, by trial number; trials without slices are left out."""
    pieces = select(Slice.id, Slice.trial_number).where(Slice.project_id == project_id, Slice.study_id == study_id)
    of_trials = pieces.where(Slice.trial_number.in_(trial_numbers)).subquery()
    # One slice after another: a join would read all attempts, whosesoever they are.
    attempts = select(Attempt).where(Attempt.slice_id == of_trials.c.id, Attempt.project_id == project_id).offset(0)
    attempt = aliased(Attempt, attempts.lateral())
    query = (
        select(
            of_trials.c.trial_number.label("trial"),
            func.count(attempt.slice_id).label("attempts"),
            total(_seconds(attempt)).label("seconds"),
            total(attempt.cost_usd).label("usd"),
            *_sums(attempt),
        )
        .outerjoin_from(of_trials, attempt, true())
        .group_by(of_trials.c.trial_number)
    )
    return {row["trial"]: _dispatched(row) for row in session.execute(query).mappings()}


def usage_of(attempt: Attempt) -> Usage:
    """What one attempt consumed."""
    return Usage(**{name: getattr(attempt, name) for name in Usage.model_fields})


def total(column: SQLColumnExpression[Any]) -> ColumnElement[float]:
    """The sum of a column as a float, 0 where there are no rows."""
    return func.coalesce(func.sum(cast(column, Float(53))), 0.0)


def _sums(attempt: type[Attempt]) -> list[ColumnElement[Any]]:
    peak, joules = attempt.peak_flops_per_second, attempt.energy_joules
    trained_seconds = attempt.train_seconds + attempt.data_seconds
    available = trained_seconds * attempt.devices * func.coalesce(peak, 0.0)
    return [
        *(total(getattr(attempt, name)).label(name) for name in (*_WHOLE, *_REAL)),
        total(_seconds(attempt) * attempt.devices).label("device_seconds"),
        func.coalesce(func.max(attempt.peak_memory_bytes), 0).label("peak_memory_bytes"),
        _known(joules.is_(None) & (_told_seconds(attempt) > 0), total(joules)).label("energy_joules"),
        _known(peak.is_(None) & (trained_seconds > 0), total(available)).label("available_flops"),
    ]


def _known(unknown: ColumnElement[bool], value: ColumnElement[float]) -> ColumnElement[Any]:
    """The sum, or null if any attempt does not know its part."""
    return case((func.coalesce(func.bool_or(unknown), False), null()), else_=value)


def _consumed(row: RowMapping) -> Consumed:
    known = {name: row[name] or 0 for name in _KEPT}
    usd, energies, peaks = (known.pop(name) for name in _BESIDE)
    unknown = ({"energy_joules": None} if energies else {}) | ({"available_flops": None} if peaks else {})
    usage = UsageSums(**known | unknown)
    spent = Spent(
        trials=row["trials"], examples=usage.examples, seconds=usage.device_seconds, usd=usd, flops=usage.flops
    )
    return Consumed(spent=spent, usage=usage)


def _dispatched(row: RowMapping) -> Dispatched:
    sums = {name: int(row[name]) if name in _WHOLE else row[name] for name in UsageSums.model_fields}
    return Dispatched(attempts=row["attempts"], seconds=row["seconds"], usd=row["usd"], usage=UsageSums(**sums))
