"""The second wall between projects: PostgreSQL shows a transaction the rows of its project only.

Every table of schema `hpo` has a row-level policy on the setting `hpo.project_id` (`migrations/walls.py`), which holds
for the tables' owner as well. A connection of ours begins with `*`, all projects; a session of `ProjectSessions` names
one project for each of its transactions. Without the setting nothing is seen.
"""

from collections.abc import Mapping
from threading import Lock
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import Session, SessionTransaction, sessionmaker

PROJECT_SETTING = "hpo.project_id"
EVERY_PROJECT = "*"
NO_PROJECT = 0
_INFO = "project of the session"


class ProjectSession(Session):
    """A session whose transactions see one project, whatever their statements say."""


@event.listens_for(ProjectSession, "after_begin")
def _confine(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    if not transaction.nested:
        project_id = int(session.info[_INFO])
        connection.exec_driver_sql(f"SELECT set_config('{PROJECT_SETTING}', %s, true)", (str(project_id),))


class ProjectSessions:
    """Sessions on one engine, confined to a project each. Safe in threads."""

    def __init__(self, engine: Engine, info: Mapping[str, Any] | None = None) -> None:
        self._engine = engine
        self._info = dict(info or {})
        self._makers: dict[int, sessionmaker[Session]] = {}
        self._lock = Lock()

    def of(self, project_id: int) -> sessionmaker[Session]:
        """Sessions that see this project; of `NO_PROJECT`, such that see none."""
        with self._lock:
            maker = self._makers.get(project_id)
            if maker is None:
                maker = self._makers[project_id] = self.told(project_id, {})
            return maker

    def told(self, project_id: int, info: Mapping[str, Any]) -> sessionmaker[Session]:
        """As `of`, for one request: its sessions know `info` as well."""
        return sessionmaker(
            self._engine,
            class_=ProjectSession,
            expire_on_commit=False,
            info={**self._info, **info, _INFO: project_id},
        )


def confined_like(session: Session, project_id: int) -> Session:
    """A new session on the same engine that sees this project only."""
    return ProjectSession(session.get_bind(), expire_on_commit=False, info={_INFO: project_id})
