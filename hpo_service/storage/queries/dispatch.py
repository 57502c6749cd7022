"""What the dispatcher reads and writes in schema `hpo`. Every write belongs to a fenced transaction of the caller."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from hpo_service.core.messages import EventKind
from hpo_service.core.study_rules import TERMINAL, Cause, Spent, StudyState
from hpo_service.storage.queries import attempt_ends
from hpo_service.storage.queries.failures import counted
from hpo_service.storage.tables import Event, Intent, Slice, Study
from trainer.spec import SliceResult

_ADDED = "added events"
_SET_DECISION_NUMBER = text("UPDATE hpo.studies SET decision_number = :number WHERE id = :study")


def live_studies(session: Session) -> Sequence[Study]:
    """Studies that have not ended, oldest first, and ended ones with an open intent."""
    open_intents = select(Intent.study_id).where(Intent.done_at.is_(None))
    query = (
        select(Study)
        .where(Study.deleted_at.is_(None))
        .where(Study.state.not_in([str(state) for state in TERMINAL]) | Study.id.in_(open_intents))
        .order_by(Study.id)
    )
    return session.scalars(query).all()


def study(session: Session, study_id: int) -> Study:
    """One study's row, locked until the transaction ends."""
    return session.scalars(select(Study).where(Study.id == study_id).with_for_update()).one()


def confirmation_of(session: Session, study_id: int) -> int | None:
    """The study that confirms this one, if its search has ended and there was something to confirm."""
    query = select(Study.id).where(Study.parent_study_id == study_id, Study.deleted_at.is_(None))
    return session.scalars(query).one_or_none()


def add_confirmation(session: Session, parent_id: int, suffix: str, resolved: dict[str, Any]) -> Study:
    """Write the study that confirms `parent_id`, queued."""
    parent = session.scalars(select(Study).where(Study.id == parent_id)).one()
    row = Study(
        project_id=parent.project_id,
        name=parent.name + suffix,
        parent_study_id=parent.id,
        spec=parent.spec,
        resolved=resolved,
        data_fingerprints=parent.data_fingerprints,
        state=str(StudyState.QUEUED),
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    return row


def open_intents(session: Session) -> Sequence[Intent]:
    """Intents that nobody has acted on, in the order they were written."""
    return session.scalars(select(Intent).where(Intent.done_at.is_(None)).order_by(Intent.id).limit(100)).all()


def finish_intent(session: Session, intent_id: int, error: str | None) -> None:
    """Mark an intent as done, or as refused with the reason."""
    session.execute(update(Intent).where(Intent.id == intent_id).values(done_at=func.clock_timestamp(), error=error))


def set_state(session: Session, study_id: int, state: StudyState, message: str) -> datetime | None:
    """Write a study's state; the caller has checked the transition. Answers when the study first ran."""
    values: dict[str, Any] = {"state": str(state), "message": message}
    if state is StudyState.RUNNING:
        values["started_at"] = func.coalesce(Study.started_at, func.clock_timestamp())
    if state in TERMINAL:
        values["finished_at"] = func.clock_timestamp()
    started_at: datetime | None = session.execute(
        update(Study).where(Study.id == study_id).values(**values).returning(Study.started_at)
    ).scalar_one()
    return started_at


def set_decision_number(session: Session, study_id: int, decision_number: int) -> None:
    """Write how many decisions of a study were accepted."""
    session.execute(_SET_DECISION_NUMBER, {"study": study_id, "number": decision_number})


def update_study(session: Session, study_id: int, **values: object) -> None:
    """Change columns of a study."""
    session.execute(update(Study).where(Study.id == study_id).values(**values))


def add_event(
    session: Session,
    project_id: int,
    study_id: int | None,
    kind: EventKind,
    payload: dict[str, Any],
    trial: int | None = None,
) -> None:
    """Append to the study's history, or (no `study_id`) to the service's."""
    event = Event(project_id=project_id, study_id=study_id, trial_number=trial, kind=str(kind), payload=payload)
    session.add(event)
    session.info.setdefault(_ADDED, []).append(event)


def take_added_events(session: Session) -> list[Event]:
    """The events that were added since the last call; once the transaction is committed, they have happened."""
    added: list[Event] = session.info.pop(_ADDED, [])
    return added


def open_slices(session: Session, study_ids: Sequence[int]) -> Sequence[Slice]:
    """Slices that wait or run."""
    query = select(Slice).where(Slice.study_id.in_(study_ids), Slice.state.in_(["waiting", "running"]))
    return session.scalars(query.order_by(Slice.id)).all()


def slice_snapshots(session: Session, slice_id: int) -> list[dict[str, Any]]:
    """Snapshots of one slice, newest first."""
    return list(session.scalars(select(Slice.snapshots).where(Slice.id == slice_id)).one())


def set_current_attempt(session: Session, slice_id: int, attempt: int) -> None:
    """The slice runs under this attempt from now on."""
    session.execute(update(Slice).where(Slice.id == slice_id).values(state="running", attempt=attempt, progress={}))


def end_attempt(session: Session, result: SliceResult, cost_usd: float, *, state: str, cause: Cause | None) -> bool:
    """Compare-and-set on `(slice, attempt)`: close both, or change nothing and answer False if the attempt is stale."""
    if not attempt_ends.close_slice(session, result, state):
        return False
    if cause is not None:
        counts = counted(Slice.failures, Slice.failures_by_cause, cause)
        session.execute(update(Slice).where(Slice.id == result.slice_id).values(**counts))
    attempt_ends.close_attempt(session, result, cost_usd, cause)
    return True


def set_progress(session: Session, token: tuple[int, int], progress: dict[str, Any]) -> None:
    """Keep the last sign of life of a running attempt."""
    session.execute(
        update(Slice)
        .where(Slice.id == token[0], Slice.attempt == token[1], Slice.state == "running")
        .values(progress=progress, heard_at=func.clock_timestamp())
    )


def drop_slices(session: Session, study_id: int) -> None:
    """Close the slices of an ending study that wait for an attempt."""
    session.execute(
        update(Slice)
        .where(Slice.study_id == study_id, Slice.state == "waiting")
        .values(state="dropped", finished_at=func.clock_timestamp())
    )


def spent(session: Session, study_id: int) -> Spent:
    """What the study's attempts have consumed."""
    row = session.execute(
        text(
            """
            SELECT count(DISTINCT s.trial_number) AS trials, coalesce(sum(a.examples), 0) AS examples,
                   coalesce(sum((a.load_seconds + a.data_seconds + a.train_seconds + a.evaluate_seconds
                                 + a.snapshot_seconds + a.lost_seconds) * a.devices), 0) AS seconds,
                   coalesce(sum(a.cost_usd), 0) AS usd, coalesce(sum(a.flops), 0) AS flops
              FROM hpo.slices s LEFT JOIN hpo.attempts a ON a.slice_id = s.id
             WHERE s.study_id = :study
            """
        ),
        {"study": study_id},
    ).one()
    return Spent(trials=row.trials, examples=int(row.examples), seconds=row.seconds, usd=row.usd, flops=row.flops)


def delete_study(session: Session, study_id: int) -> None:
    """Forget an ended study; its name is free again. Rows stay for the accounts."""
    session.execute(
        update(Study).where(Study.id == study_id).values(deleted_at=func.clock_timestamp(), optuna_study_id=None)
    )


def database_now(session: Session) -> datetime:
    """The database's clock."""
    now: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return now
