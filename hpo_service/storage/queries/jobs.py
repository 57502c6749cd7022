"""Jobs in schema `hpo`: what the API reads of them, and what the dispatcher writes in its fenced transactions."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, select, text, update
from sqlalchemy.orm import Session

from hpo_service.core.messages import IntentKind
from hpo_service.core.study_rules import Cause
from hpo_service.storage.promotion_tables import Delivery
from hpo_service.storage.queries.failures import counted
from hpo_service.storage.tables import Intent, Job, Study
from trainer.spec import JobResult, Outcome, SnapshotRef, Task, TrainFinal

_NEXT_ID = text("SELECT nextval(pg_get_serial_sequence('hpo.slices', 'id'))")
_TRY_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:fingerprint, :project))")
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:fingerprint, :project))")


def lock(session: Session, project_id: int, fingerprint: str) -> None:
    """Make those who ask for the same job wait for each other until the transaction ends."""
    session.execute(_LOCK, {"fingerprint": fingerprint, "project": project_id})


def reserve_id(session: Session) -> int:
    """The id of a job that is to be written; no slice will ever have it."""
    return int(session.execute(_NEXT_ID).scalar_one())


def find(session: Session, project_id: int, job_id: int) -> Job | None:
    """The job with this id."""
    return session.scalars(select(Job).where(Job.project_id == project_id, Job.id == job_id)).one_or_none()


def answering(session: Session, project_id: int, fingerprint: str) -> Job | None:
    """The newest job of this fingerprint that has a report or is to have one."""
    query = select(Job).where(Job.project_id == project_id, Job.kind == "check_data", Job.fingerprint == fingerprint)
    return session.scalars(query.where(Job.state != "failed").order_by(Job.id.desc()).limit(1)).one_or_none()


def give_up(session: Session, job_id: int, outcome: Outcome, message: str) -> None:
    """A job that waits fails: nobody is there who could do it."""
    values = {"state": "failed", "outcome": str(outcome), "message": message, "finished_at": func.clock_timestamp()}
    session.execute(update(Job).where(Job.id == job_id, Job.state == "waiting").values(**values))


def asked_for(
    session: Session, project_id: int, kind: IntentKind = IntentKind.CHECK_DATA, **payload: object
) -> Intent | None:
    """The open intent for such a job whose payload has these values."""
    query = select(Intent).where(
        Intent.project_id == project_id,
        Intent.kind == str(kind),
        Intent.done_at.is_(None),
        Intent.payload.contains(payload),
    )
    return session.scalars(query.order_by(Intent.id).limit(1)).one_or_none()


def last_wanted(session: Session, project_id: int, caller: int) -> int | None:
    """The check that the key `caller` asked for last, without a study."""
    query = select(Intent.payload["job_id"].as_integer()).where(Intent.project_id == project_id, *_wanted_by([caller]))
    return session.scalars(query.order_by(Intent.id.desc()).limit(1)).one_or_none()


def callers(session: Session, job_ids: Collection[int]) -> dict[int, set[int]]:
    """By check that keys asked for without a study: the keys that did not ask for another one since."""
    asked = select(Intent.payload["caller"].as_integer(), Intent.payload["job_id"].as_integer(), Intent.id).where(
        Intent.done_at.is_not(None), *_wanted_by(None), Intent.payload["job_id"].as_integer().in_(job_ids)
    )
    rows = session.execute(asked).all()
    newest = select(Intent.payload["caller"].as_integer(), func.max(Intent.id)).where(
        Intent.done_at.is_not(None), *_wanted_by([caller for caller, _, _ in rows])
    )
    last: dict[int, int] = dict(session.execute(newest.group_by(Intent.payload["caller"].as_integer())).all())
    found: dict[int, set[int]] = {}
    for caller, job_id, intent_id in rows:
        found.setdefault(job_id, set()).update({caller} if last[caller] == intent_id else ())
    return found


def _wanted_by(callers: Collection[int] | None) -> tuple[ColumnElement[bool], ...]:
    """Of intents: those for a check that one of these keys, or any, asked for without a study."""
    who = Intent.payload["caller"]
    known = Intent.payload.has_key("caller") if callers is None else who.as_integer().in_(callers)
    return (Intent.kind == str(IntentKind.CHECK_DATA), known)


def nobody_waits(session: Session, project_id: int, job_id: int) -> bool:
    """Whether no study and no open intent is about the check, and none will be until the transaction ends.

    False as well where somebody just asks for the same fingerprint: it is tried again later.
    """
    fingerprint = session.scalars(select(Job.fingerprint).where(Job.id == job_id)).one()
    if not session.execute(_TRY_LOCK, {"fingerprint": fingerprint, "project": project_id}).scalar_one():
        return False
    studies = session.scalars(select(Study.id).where(Study.project_id == project_id, Study.check_job_id == job_id))
    return studies.first() is None and asked_for(session, project_id, job_id=job_id) is None


def ask(session: Session, project_id: int, payload: dict[str, Any], kind: IntentKind = IntentKind.CHECK_DATA) -> None:
    """Ask the dispatcher for a job."""
    session.add(Intent(project_id=project_id, kind=str(kind), payload=payload))
    session.flush()


def add(
    session: Session,
    project_id: int,
    *,
    job_id: int,
    study_id: int | None,
    fingerprint: str,
    task: Task,
    delivery: Delivery | None = None,
) -> Job:
    """Write a job that waits for its first attempt; the next step of a delivery if one is given."""
    job = Job(
        id=job_id,
        project_id=project_id,
        study_id=study_id,
        delivery_id=None if delivery is None else delivery.id,
        kind=task.kind,
        task=task.model_dump(mode="json"),
        fingerprint=fingerprint,
        state="waiting",
        attempt=0,
        failures=0,
        snapshots=[],
    )
    session.add(job)
    session.flush()
    return job


def open_jobs(session: Session) -> Sequence[Job]:
    """Jobs that wait or run, oldest first."""
    return session.scalars(select(Job).where(Job.state.in_(["waiting", "running"])).order_by(Job.id)).all()


def start(session: Session, job_id: int, attempt: int, worker_id: int) -> None:
    """Begin an attempt."""
    values = {"state": "running", "attempt": attempt, "worker_id": worker_id, "progress": {}}
    session.execute(update(Job).where(Job.id == job_id).values(**values, started_at=func.clock_timestamp()))


def held_seconds(session: Session, job_id: int) -> float:
    """For how long the current attempt has been on its worker."""
    query = select(func.extract("epoch", func.clock_timestamp() - Job.started_at)).where(Job.id == job_id)
    return max(0.0, float(session.execute(query).scalar_one() or 0.0))


def keep_snapshots(session: Session, job_id: int, snapshots: Sequence[SnapshotRef]) -> None:
    """What a training left so far, newest first."""
    values = [snapshot.model_dump() for snapshot in snapshots]
    session.execute(update(Job).where(Job.id == job_id).values(snapshots=values))


def keep_task(session: Session, job_id: int, task: TrainFinal) -> None:
    """The training goes on with another micro-batch."""
    session.execute(update(Job).where(Job.id == job_id).values(task=task.model_dump(mode="json")))


def set_progress(session: Session, token: tuple[int, int], progress: dict[str, Any]) -> None:
    """Keep the last sign of life of a running attempt."""
    current = (Job.id == token[0], Job.attempt == token[1], Job.state == "running")
    session.execute(update(Job).where(*current).values(progress=progress))


def end(session: Session, result: JobResult, cost_usd: float, *, state: str, cause: Cause | None) -> bool:
    """Compare-and-set on `(job, attempt)`: close the attempt, or change nothing and answer False if it is stale."""
    values: dict[str, Any] = {
        "state": state,
        "outcome": str(result.outcome),
        "message": result.message,
        **counted(Job.failures, Job.failures_by_cause, cause),
        "seconds": Job.seconds + result.seconds,
        "cost_usd": Job.cost_usd + cost_usd,
        "finished_at": None if state == "waiting" else func.clock_timestamp(),
    }
    if result.report is not None:
        values["report"] = result.report
    closed = session.execute(
        update(Job)
        .where(Job.id == result.job_id, Job.attempt == result.attempt, Job.state == "running")
        .values(**values)
        .returning(Job.id)
    )
    return closed.scalar_one_or_none() is not None
