"""What is written of a slice when an attempt ends. Hundreds may end in a second, so the statements are built once."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, func, text, update
from sqlalchemy.orm import Session

from hpo_service.storage.tables import Attempt, Slice
from trainer.spec import SliceResult, Usage, UsageSums

_CLOSE_SLICE = text(
    """
    UPDATE hpo.slices
       SET state = :state, finished_at = CASE WHEN :state = 'waiting' THEN NULL ELSE clock_timestamp() END
     WHERE id = :slice_id AND attempt = :attempt AND state = 'running'
    RETURNING id
    """
)
_RESULT_COLUMNS = ("message", "device", "dtype", "attention", "micro_batch", "predicted_memory_bytes")
_WRITTEN = ("outcome", "cause", "cost_usd", *_RESULT_COLUMNS, *Usage.model_fields)
_CLOSE_ATTEMPT = (
    update(Attempt.__table__)  # type: ignore[arg-type]
    .where(Attempt.slice_id == bindparam("of_slice"), Attempt.attempt == bindparam("of_attempt"))
    .values(finished_at=func.clock_timestamp(), **{name: bindparam(name) for name in _WRITTEN})
)
_ADDED = (
    *(name for name in UsageSums.model_fields if name != "peak_memory_bytes"),
    "cost_usd",
    "unknown_energies",
    "unknown_peaks",
)
_COLUMNS = ("peak_memory_bytes", *_ADDED)
_ADD_TO_STUDY = text(
    f"""
    INSERT INTO hpo.study_usage AS known (study_id, project_id, {", ".join(_COLUMNS)})
    SELECT study_id, project_id, {", ".join(f":{name}" for name in _COLUMNS)} FROM hpo.slices WHERE id = :slice_id
    ON CONFLICT (study_id) DO UPDATE
       SET peak_memory_bytes = greatest(known.peak_memory_bytes, excluded.peak_memory_bytes),
           {", ".join(f"{name} = known.{name} + excluded.{name}" for name in _ADDED)}
    """  # noqa: S608
)
_OF_SLICE = update(Slice.__table__).where(Slice.id == bindparam("of_slice"))  # type: ignore[arg-type]
_SET_SNAPSHOTS = _OF_SLICE.values(snapshots=bindparam("snapshots"))
_SET_FOLD_LOSSES = _OF_SLICE.values(fold_losses=bindparam("fold_losses"))


def close_slice(session: Session, result: SliceResult, state: str) -> bool:
    """Compare-and-set on `(slice, attempt)`: False, and nothing changes, if the attempt is stale."""
    values = {"slice_id": result.slice_id, "attempt": result.attempt, "state": state}
    return session.connection().execute(_CLOSE_SLICE, values).scalar_one_or_none() is not None


def close_attempt(session: Session, result: SliceResult, cost_usd: float, cause: str | None) -> None:
    """Write what the attempt came to, and add it to what its study consumed."""
    values: dict[str, Any] = {name: getattr(result, name) for name in _RESULT_COLUMNS}
    values |= {"outcome": str(result.outcome), "cause": cause, "cost_usd": cost_usd}
    values |= {"of_slice": result.slice_id, "of_attempt": result.attempt}
    session.connection().execute(_CLOSE_ATTEMPT, values | result.usage.model_dump())
    sums = result.usage.sums()
    added: dict[str, Any] = sums.model_dump() | {"slice_id": result.slice_id, "cost_usd": cost_usd}
    added |= {"energy_joules": sums.energy_joules or 0.0, "unknown_energies": int(sums.energy_joules is None)}
    added |= {"available_flops": sums.available_flops or 0.0, "unknown_peaks": int(sums.available_flops is None)}
    session.connection().execute(_ADD_TO_STUDY, added)


def set_snapshots(session: Session, slice_id: int, snapshots: list[dict[str, Any]]) -> None:
    """Replace what is known of a slice's snapshots, newest first."""
    session.connection().execute(_SET_SNAPSHOTS, {"of_slice": slice_id, "snapshots": snapshots})


def set_fold_losses(session: Session, slice_id: int, fold_losses: Sequence[float]) -> None:
    """Keep the mean evaluation loss of every fold at the rung that the slice reached."""
    session.connection().execute(_SET_FOLD_LOSSES, {"of_slice": slice_id, "fold_losses": list(fold_losses)})
