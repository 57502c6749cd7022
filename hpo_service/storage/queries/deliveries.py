"""Deliveries in schema `hpo`: what the API reads and asks for, and what the dispatcher has to know of one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, select
from sqlalchemy.orm import Session

from hpo_service.core.errors import NotFound
from hpo_service.core.messages import IntentKind
from hpo_service.storage.promotion_tables import Delivery, Promotion
from hpo_service.storage.tables import ApiKey, Intent, Job, Study, Worker


@dataclass(frozen=True, kw_only=True)
class Step:
    """A job of a delivery. `state`: waiting, running, done, failed; `worker` has or had its last attempt."""

    id: int
    kind: str
    state: str
    attempt: int
    failures_by_cause: dict[str, Any]
    outcome: str | None
    message: str
    report: dict[str, Any] | None
    progress: dict[str, Any]
    worker: str | None
    seconds: float
    cost_usd: float
    finished_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Found:
    """A delivery with its promotion, and its jobs in the order in which they run."""

    row: Delivery
    promotion: Promotion
    study: str
    delivered_by: str
    steps: Sequence[Step]


def add(session: Session, delivery: Delivery) -> None:
    """Write a delivery and ask the dispatcher for its jobs."""
    session.add(delivery)
    session.flush()
    payload = {"delivery_id": delivery.id}
    session.add(Intent(project_id=delivery.project_id, kind=str(IntentKind.DELIVER), payload=payload))
    session.flush()


def find(session: Session, project_id: int, delivery_id: int) -> Found:
    """Raises NotFound."""
    row = session.execute(_selected(project_id).where(Delivery.id == delivery_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no delivery {delivery_id} in this project.")
    return _found(session, project_id, [row])[0]


def newest_first(
    session: Session, project_id: int, *, name: str | None, version: int | None, before_id: int | None, limit: int
) -> list[Found]:
    """Up to `limit` deliveries, of one promotion or version of it, or of all."""
    query = _selected(project_id)
    if name is not None:
        query = query.where(Promotion.name == name)
    if version is not None:
        query = query.where(Promotion.version == version)
    if before_id is not None:
        query = query.where(Delivery.id < before_id)
    rows = session.execute(query.order_by(Delivery.id.desc()).limit(limit)).all()
    return _found(session, project_id, rows)


def with_promotion(session: Session, delivery_id: int) -> tuple[Delivery, Promotion]:
    """For the dispatcher, which works for all projects."""
    query = select(Delivery, Promotion).join(Promotion, Promotion.id == Delivery.promotion_id)
    delivery, promotion = session.execute(query.where(Delivery.id == delivery_id)).one()
    return delivery, promotion


def trained_adapters(session: Session, project_id: int, promotion_id: int) -> list[dict[str, Any]]:
    """Reports of the trainings of earlier deliveries of the promotion that are done, newest first."""
    query = (
        select(Job.report)
        .join(Delivery, and_(Delivery.id == Job.delivery_id, Delivery.project_id == Job.project_id))
        .where(
            Job.project_id == project_id,
            Delivery.promotion_id == promotion_id,
            Job.kind == "train_final",
            Job.state == "done",
        )
    )
    return [report for report in session.scalars(query.order_by(Job.id.desc()).limit(4)) if report is not None]


def ready_software(session: Session) -> dict[str, dict[str, Any]]:
    """What is installed on the workers that take work, by their names. Workers are of no project."""
    rows = session.execute(select(Worker.name, Worker.software).where(Worker.state == "ready"))
    return {row.name: row.software for row in rows}


def _selected(project_id: int) -> Select[Delivery, Promotion, str, str]:
    return (
        select(Delivery, Promotion, Study.name, ApiKey.label)
        .join(Promotion, and_(Promotion.id == Delivery.promotion_id, Promotion.project_id == Delivery.project_id))
        .join(Study, and_(Study.id == Promotion.study_id, Study.project_id == Promotion.project_id))
        .join(ApiKey, ApiKey.id == Delivery.api_key_id)
        .where(Delivery.project_id == project_id)
    )


def _found(session: Session, project_id: int, rows: Sequence[Any]) -> list[Found]:
    steps = _steps(session, project_id, [delivery.id for delivery, *_ in rows])
    return [
        Found(row=row, promotion=promotion, study=study, delivered_by=label, steps=steps.get(row.id, []))
        for row, promotion, study, label in rows
    ]


def _steps(session: Session, project_id: int, delivery_ids: Sequence[int]) -> dict[int, list[Step]]:
    query = (
        select(Job, Worker.name)
        .outerjoin(Worker, Worker.id == Job.worker_id)
        .where(Job.project_id == project_id, Job.delivery_id.in_(delivery_ids))
    )
    found: dict[int, list[Step]] = {}
    for job, worker in session.execute(query.order_by(Job.id)):
        step = Step(
            id=job.id,
            kind=job.kind,
            state=job.state,
            attempt=job.attempt,
            failures_by_cause=job.failures_by_cause,
            outcome=job.outcome,
            message=job.message,
            report=job.report,
            progress=job.progress,
            worker=worker,
            seconds=job.seconds,
            cost_usd=job.cost_usd,
            finished_at=job.finished_at,
        )
        assert job.delivery_id is not None
        found.setdefault(job.delivery_id, []).append(step)
    return found
