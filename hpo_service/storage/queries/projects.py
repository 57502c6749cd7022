"""Projects. Whoever calls this administers all of them."""

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from hpo_service.core.errors import NotFound
from hpo_service.storage.tables import Project


def add(session: Session, name: str) -> Project | None:
    """Write a new project; None if the name is taken."""
    made = session.scalars(
        insert(Project).values(name=name).on_conflict_do_nothing(index_elements=["name"]).returning(Project)
    ).one_or_none()
    session.flush()
    return made


def find(session: Session, name: str) -> Project:
    """Raises NotFound."""
    project = session.scalars(select(Project).where(Project.name == name)).one_or_none()
    if project is None:
        raise NotFound(absent(name))
    return project


def name_of(session: Session, project_id: int) -> str:
    """Of a project that is there."""
    return session.scalars(select(Project.name).where(Project.id == project_id)).one()


def absent(name: str) -> str:
    """What is said of a project that is not there, or not for who asks."""
    return f"there is no project {name[:80]!r}; `hpo project list` shows them all."


def oldest_first(session: Session, *, after_id: int, limit: int) -> list[Project]:
    """Up to `limit` projects after one."""
    return list(session.scalars(select(Project).where(Project.id > after_id).order_by(Project.id).limit(limit)))
