"""Studies and intents as the API reads and writes them. Nothing is found across projects."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from hpo_service.core.errors import Conflict, NotFound
from hpo_service.core.messages import IntentKind
from hpo_service.core.study_rules import TERMINAL
from hpo_service.storage.tables import Intent, Project, Study


def find(session: Session, project_id: int, name: str) -> Study:
    """The study with this name. Raises NotFound."""
    return _one(session, _named(project_id, name), name)


def find_opened(session: Session, project_id: int, optuna_study_id: int) -> Study:
    """The study with this number in Optuna's tables. Raises NotFound."""
    query = select(Study).where(
        Study.project_id == project_id, Study.optuna_study_id == optuna_study_id, Study.deleted_at.is_(None)
    )
    return _one(session, query, str(optuna_study_id))


def find_and_lock(session: Session, project_id: int, name: str) -> Study:
    """As `find`; no one else changes the study until the transaction ends."""
    return _one(session, _named(project_id, name).with_for_update().execution_options(populate_existing=True), name)


def newest_first(session: Session, project_id: int, *, before_id: int | None, limit: int) -> Sequence[Study]:
    """Up to `limit` studies, the newest first; with `before_id`, only those made before that one.

    Those that confirm another one are shown with it, not beside it.
    """
    query = select(Study).where(
        Study.project_id == project_id, Study.deleted_at.is_(None), Study.parent_study_id.is_(None)
    )
    if before_id is not None:
        query = query.where(Study.id < before_id)
    return session.scalars(query.order_by(Study.id.desc()).limit(limit)).all()


def live(session: Session, project_id: int) -> Sequence[Study]:
    """Studies of the project that have not ended."""
    query = select(Study).where(
        Study.project_id == project_id, Study.deleted_at.is_(None), Study.state.not_in([str(end) for end in TERMINAL])
    )
    return session.scalars(query.order_by(Study.id)).all()


def ended(session: Session, project_id: int, *, before_id: int | None, limit: int) -> Sequence[Study]:
    """Up to `limit` studies of the project that have ended, the newest first; without those that confirm another."""
    query = select(Study).where(
        Study.project_id == project_id,
        Study.deleted_at.is_(None),
        Study.parent_study_id.is_(None),
        Study.state.in_([str(end) for end in TERMINAL]),
    )
    if before_id is not None:
        query = query.where(Study.id < before_id)
    return session.scalars(query.order_by(Study.id.desc()).limit(limit)).all()


def opened(session: Session, project_id: int, *, limit: int | None) -> Sequence[Study]:
    """Studies of the project that may have searched trials, the newest first, at most `limit`."""
    query = select(Study).where(
        Study.project_id == project_id,
        Study.deleted_at.is_(None),
        Study.optuna_study_id.is_not(None),
        Study.parent_study_id.is_(None),
    )
    return session.scalars(query.order_by(Study.id.desc()).limit(limit)).all()


def confirmation_of(session: Session, study: Study) -> Study | None:
    """The study that confirms this one, if its search has ended and there was something to confirm."""
    return confirmations_of(session, study.project_id, [study.id]).get(study.id)


def confirmations_of(session: Session, project_id: int, study_ids: Sequence[int]) -> dict[int, Study]:
    """The studies that confirm these, by the study that they confirm."""
    query = select(Study).where(
        Study.project_id == project_id, Study.parent_study_id.in_(study_ids), Study.deleted_at.is_(None)
    )
    return {child.parent_study_id: child for child in session.scalars(query) if child.parent_study_id is not None}


def add(
    session: Session, project_id: int, *, name: str, spec: dict[str, Any], resolved: dict[str, Any], state: str
) -> Study:
    """Insert a study. Raises Conflict if the name is taken."""
    study = Study(project_id=project_id, name=name, spec=spec, resolved=resolved, state=state)
    try:
        with session.begin_nested():
            session.add(study)
    except IntegrityError as error:
        if "uq_studies_project_id_name_live" not in str(error.orig):
            raise
        raise Conflict(f"a study named {name!r} exists already; choose another name or delete that study.") from None
    session.refresh(study)
    return study


def is_taken(session: Session, project_id: int, name: str) -> bool:
    """True if a study has this name now."""
    return session.execute(_named(project_id, name).with_only_columns(Study.id)).scalar_one_or_none() is not None


def add_intent(session: Session, study: Study, kind: IntentKind, payload: dict[str, Any]) -> None:
    """Ask the dispatcher to do something with the study."""
    session.add(Intent(project_id=study.project_id, study_id=study.id, kind=str(kind), payload=payload))
    session.flush()


def open_intents(session: Session, study: Study) -> Sequence[Intent]:
    """What the dispatcher has not done yet, in the order in which it will."""
    query = select(Intent).where(
        Intent.project_id == study.project_id, Intent.study_id == study.id, Intent.done_at.is_(None)
    )
    return session.scalars(query.order_by(Intent.id)).all()


def open_intent_kinds(session: Session, project_id: int, study_ids: Sequence[int]) -> dict[int, list[str]]:
    """Kinds of open intents by study, in order."""
    query = (
        select(Intent.study_id, Intent.kind)
        .where(Intent.project_id == project_id, Intent.study_id.in_(study_ids), Intent.done_at.is_(None))
        .order_by(Intent.id)
    )
    kinds: dict[int, list[str]] = {}
    for study_id, kind in session.execute(query):
        assert study_id is not None
        kinds.setdefault(study_id, []).append(kind)
    return kinds


def state_by_id(session: Session, project_id: int, study_id: int) -> str | None:
    """State of a study; None if it was deleted."""
    return session.execute(
        select(Study.state).where(Study.project_id == project_id, Study.id == study_id, Study.deleted_at.is_(None))
    ).scalar_one_or_none()


def project_name(session: Session, project_id: int) -> str:
    """Name of a project that exists."""
    return session.execute(select(Project.name).where(Project.id == project_id)).scalar_one()


def _named(project_id: int, name: str) -> Select[Study]:
    return select(Study).where(Study.project_id == project_id, Study.name == name, Study.deleted_at.is_(None))


def _one(session: Session, query: Select[Study], name: str) -> Study:
    study = session.execute(query).scalar_one_or_none()
    if study is None:
        raise NotFound(f"there is no study named {name[:80]!r} in this project.")
    return study
