"""Promotions as the API reads and writes them. Nothing is found across projects, and nothing is ever changed."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, func, or_, select, text, update
from sqlalchemy.orm import Session, aliased

from hpo_service.core.errors import NotFound
from hpo_service.core.messages import EventKind, IntentKind
from hpo_service.storage.promotion_tables import Promotion, PromotionApproval
from hpo_service.storage.tables import ApiKey, Attempt, Intent, Project, Slice, Study, Worker

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, :project))")


@dataclass(frozen=True, kw_only=True)
class Found:
    """A promotion with the names that belong to its ids."""

    row: Promotion
    study: str
    study_deleted: bool
    promoted_by: str
    approved_by: str | None
    approved_at: datetime | None

    @property
    def effective(self) -> bool:
        """Whether it may be used: it needs no approval, or has it."""
        return not self.row.needs_approval or self.approved_by is not None


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Where the last slice of a trial ran."""

    device: str
    dtype: str
    attention: str
    repeatable: bool | None
    software: dict[str, Any]


def lock(session: Session, project_id: int, name: str) -> None:
    """Make those who promote to this name wait for each other until the transaction ends."""
    session.execute(_LOCK, {"name": f"promotion {name}", "project": project_id})


def next_version(session: Session, project_id: int, name: str) -> int:
    """One more than the newest. The name is locked."""
    query = select(func.coalesce(func.max(Promotion.version), 0)).where(
        Promotion.project_id == project_id, Promotion.name == name
    )
    return int(session.execute(query).scalar_one()) + 1


def add(session: Session, promotion: Promotion) -> None:
    """Write a promotion; the dispatcher makes it an event."""
    session.add(promotion)
    session.flush()
    _tell(session, promotion, EventKind.PROMOTION_MADE, effective=not promotion.needs_approval)


def approve(session: Session, promotion: Promotion, key_id: int) -> None:
    """Write the consent of a key; the dispatcher makes it an event."""
    session.add(PromotionApproval(promotion_id=promotion.id, project_id=promotion.project_id, api_key_id=key_id))
    session.flush()
    _tell(session, promotion, EventKind.PROMOTION_APPROVED, effective=True)


def newest_first(
    session: Session, project_id: int, *, name: str | None, before_id: int | None, limit: int
) -> list[Found]:
    """Up to `limit` promotions, of one name or of all."""
    query = _selected(project_id)
    if name is not None:
        query = query.where(Promotion.name == name)
    if before_id is not None:
        query = query.where(Promotion.id < before_id)
    return [_found(row) for row in session.execute(query.order_by(Promotion.id.desc()).limit(limit))]


def find(session: Session, project_id: int, name: str, version: int) -> Found:
    """Raises NotFound."""
    query = _selected(project_id).where(Promotion.name == name, Promotion.version == version)
    row = session.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"there is no promotion {name[:80]}@{version} in this project.")
    return _found(row)


def latest(session: Session, project_id: int, name: str) -> Found | None:
    """The newest that may be used."""
    return _newest_effective(session, _selected(project_id).where(Promotion.name == name))


def latest_before(session: Session, project_id: int, name: str, version: int) -> Found | None:
    """The newest that may be used of those older than `version` that repeat no other."""
    query = _selected(project_id).where(
        Promotion.name == name, Promotion.version < version, Promotion.rollback_of.is_(None)
    )
    return _newest_effective(session, query)


def asks_for_approval(session: Session, project_id: int) -> bool:
    """The project's setting `promotion_approval`."""
    return session.execute(select(Project.promotion_approval).where(Project.id == project_id)).scalar_one()


def set_approval(session: Session, project_id: int, needed: bool) -> None:
    """Change the project's setting; it counts for promotions that are made from now on."""
    session.execute(update(Project).where(Project.id == project_id).values(promotion_approval=needed))


def now(session: Session) -> datetime:
    """The database's clock."""
    at: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return at


def key_label(session: Session, project_id: int, key_id: int) -> str:
    """What a key is called."""
    query = select(ApiKey.label).where(ApiKey.project_id == project_id, ApiKey.id == key_id)
    return session.execute(query).scalar_one()


def surroundings(session: Session, project_id: int, study_id: int, trial_number: int) -> Surroundings | None:
    """Of the attempt that took the trial to where it is; None if no attempt ended well."""
    query = (
        select(Attempt.device, Attempt.dtype, Attempt.attention, Worker.repeatable, Worker.software)
        .join(Slice, and_(Attempt.slice_id == Slice.id, Attempt.project_id == Slice.project_id))
        .outerjoin(Worker, Worker.id == Attempt.worker_id)
        .where(
            Slice.project_id == project_id,
            Slice.study_id == study_id,
            Slice.trial_number == trial_number,
            Attempt.outcome == "done",
        )
        .order_by(Slice.until_examples.desc())
        .limit(1)
    )
    row = session.execute(query).one_or_none()
    if row is None:
        return None
    return Surroundings(
        device=row.device,
        dtype=row.dtype,
        attention=row.attention,
        repeatable=row.repeatable,
        software=row.software or {},
    )


def folds_at(
    session: Session, project_id: int, study_id: int, trial_number: int, until_examples: int
) -> tuple[float, ...]:
    """Mean evaluation losses of the folds of a trial at a rung; empty if they are not known."""
    query = select(Slice.fold_losses).where(
        Slice.project_id == project_id,
        Slice.study_id == study_id,
        Slice.trial_number == trial_number,
        Slice.until_examples == until_examples,
    )
    return tuple(session.execute(query).scalar_one_or_none() or ())


def promoted_trials(session: Session, study_id: int) -> list[int]:
    """Numbers of the study's trials that were promoted."""
    query = select(Promotion.trial_number).where(Promotion.study_id == study_id).distinct()
    return list(session.scalars(query.order_by(Promotion.trial_number)))


def _tell(session: Session, promotion: Promotion, event: EventKind, *, effective: bool) -> None:
    """The name is locked, so that what happens to it is told in order."""
    label = f"{promotion.name}@{promotion.version}"
    payload = {
        "name": promotion.name,
        "version": promotion.version,
        "repeats": promotion.rollback_of,
        "effective": effective,
        "message": f"{label} may be used" if effective else f"{label} waits for approval",
    }
    told = {
        "event": str(event),
        "study_id": promotion.study_id,
        "trial": promotion.trial_number,
        "payload": payload,
    }
    session.add(Intent(project_id=promotion.project_id, kind=str(IntentKind.TELL_PROMOTION), payload=told))


def _selected(project_id: int) -> Select[Promotion, str, bool, str, str | None, datetime | None]:
    approver = aliased(ApiKey)
    return (
        select(
            Promotion,
            Study.name,
            Study.deleted_at.is_not(None),
            ApiKey.label,
            approver.label,
            PromotionApproval.created_at,
        )
        .join(Study, and_(Study.id == Promotion.study_id, Study.project_id == Promotion.project_id))
        .join(ApiKey, ApiKey.id == Promotion.api_key_id)
        .outerjoin(PromotionApproval, PromotionApproval.promotion_id == Promotion.id)
        .outerjoin(approver, approver.id == PromotionApproval.api_key_id)
        .where(Promotion.project_id == project_id)
    )


def _newest_effective(
    session: Session, query: Select[Promotion, str, bool, str, str | None, datetime | None]
) -> Found | None:
    effective = or_(Promotion.needs_approval.is_(False), PromotionApproval.promotion_id.is_not(None))
    row = session.execute(query.where(effective).order_by(Promotion.version.desc()).limit(1)).one_or_none()
    return None if row is None else _found(row)


def _found(row: Any) -> Found:  # noqa: ANN401
    promotion, study, deleted, promoted_by, approved_by, approved_at = row
    return Found(
        row=promotion,
        study=study,
        study_deleted=deleted,
        promoted_by=promoted_by,
        approved_by=approved_by,
        approved_at=approved_at,
    )
