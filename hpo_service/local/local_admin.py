"""Projects, API keys and login links made on the service's own machine, with its database at hand.

What is changed here is in the audit log as what is changed over HTTP; a transaction that names no action can only read.
"""

import getpass
import os
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from sqlalchemy import text
from sqlalchemy.orm import Session

from hpo_service.auth.principals import Scope, authenticate_key, create_key, create_login_link, parse_key
from hpo_service.core.errors import Unauthenticated
from hpo_service.local.home import Home
from hpo_service.services.access import audit, keys, projects, quotas
from hpo_service.services.access.audit import AuditEntry
from hpo_service.services.access.key_schemas import KeyDocument, NewKeyDocument, ProjectDocument
from hpo_service.services.access.quota_schemas import QuotaDocument
from hpo_service.storage.audit_chain import Head, Verdict
from hpo_service.storage.database import make_engine, session_factory
from hpo_service.storage.queries import projects as stored_projects
from hpo_service.storage.queries import promotions

DEFAULT_PROJECT = "default"
ADMIN = "admin"
_MOST = 10_000


class Credentials:
    """Whoever can read the database's URL may do everything here."""

    def __init__(self, database_url: str) -> None:
        self._engine = make_engine(database_url, application_name="hpo-credentials", pool_size=0)
        self._sessions = session_factory(self._engine)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.dispose()

    def create_project(self, name: str) -> ProjectDocument:
        """Raises Conflict if the name is taken."""
        with self._changing("create_project") as (session, _):
            return projects.create(session, name)

    def list_projects(self) -> list[ProjectDocument]:
        """The oldest first."""
        with self._reading() as session:
            return projects.list_projects(session, page_size=_MOST, page_token=None).items

    def list_quotas(self) -> dict[str, QuotaDocument]:
        """What every project may use, and uses, by its name."""
        with self._reading() as session:
            return quotas.list_quotas(session)

    def change_quota(self, project: str, limits: Mapping[str, float | None]) -> QuotaDocument:
        """Set the limits that are named, None: none. Raises NotFound."""
        with self._changing("set_quota", project) as (session, project_id):
            audit.tell(session, f"projects/{project}", **limits)
            return quotas.change_quota(session, project_id, limits)

    def create_key(
        self, label: str, scopes: Collection[Scope], *, project: str, lifetime_seconds: int | None
    ) -> NewKeyDocument:
        """A new API key; it cannot be seen again. Raises as `access.keys.create`."""
        with self._changing("create_key", project) as (session, project_id):
            return keys.create(
                session, project_id, label, scopes, granter=tuple(Scope), lifetime_seconds=lifetime_seconds
            )

    def list_keys(self, project: str) -> list[KeyDocument]:
        """The newest first, ended ones too."""
        with self._reading() as session:
            project_id = stored_projects.find(session, project).id
            return keys.list_keys(session, project_id, page_size=_MOST, page_token=None).items

    def rotate_key(self, label: str, home: Home, *, project: str, overlap_seconds: int) -> NewKeyDocument:
        """A second key of the label, which the home keeps if it had the first one. Raises as `access.keys.rotate`."""
        with self._changing("rotate_key", project) as (session, project_id):
            made = keys.rotate(session, project_id, label, granter=tuple(Scope), overlap_seconds=overlap_seconds)
        kept = parse_key(home.key() or "")
        if kept and made.replaces and kept[0] == made.replaces.id:
            home.keep_key(made.key)
        return made

    def revoke_key(self, key_id: int, project: str) -> KeyDocument:
        """Raises as `access.keys.revoke`."""
        with self._changing("revoke_key", project) as (session, project_id):
            return keys.revoke(session, project_id, key_id)

    def require_approval(self, needed: bool, project: str) -> None:
        """Whether promotions that are made from now on need a second key's consent."""
        with self._changing("set_approval", project) as (session, project_id):
            promotions.set_approval(session, project_id, needed)
            audit.tell(session, f"projects/{project}", needed=needed)

    def ensure_admin_key(self, home: Home) -> bool:
        """Keep a key of this database in the home; True if a new one was made. It never expires."""
        if self._is_valid(home.key()):
            return False
        with self._changing("create_key") as (session, project_id):
            key = create_key(session, project_id, ADMIN)
            audit.tell(session, f"keys/{key.split('_')[2]}", label=ADMIN)
        home.keep_key(key)
        return True

    def login_link(self, key: str, url: str) -> str:
        """A link that logs one browser in, once."""
        with self._sessions.begin() as session:
            caller = authenticate_key(session, key)
            audit.watch(session, _entry(caller.project_id, "create_login_link", f"keys/{caller.key_id}"))
            return create_login_link(session, key, url)

    def verify_audit(self, project: str | None, known: Head | None = None) -> Iterator[tuple[str, Verdict]]:
        """Recompute the audit log's chain of a project, or of all; `known` is a row of it that was written down.

        Raises:
            NotFound: there is no such project.
        """
        for name in [one.name for one in self.list_projects()] if project is None else [project]:
            with self._reading() as session:
                yield name, audit.verify(session, stored_projects.find(session, name).id, known)

    @contextmanager
    def _changing(self, action: str, project: str = DEFAULT_PROJECT) -> Iterator[tuple[Session, int]]:
        with self._sessions.begin() as session:
            project_id = stored_projects.find(session, project).id
            yield audit.watch(session, _entry(project_id, action)), project_id

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        with self._sessions.begin() as session:
            session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
            yield session

    def _is_valid(self, key: str | None) -> bool:
        if key is None:
            return False
        with self._sessions.begin() as session:
            try:
                authenticate_key(session, key)
            except Unauthenticated:
                return False
        return True


def _entry(project_id: int, action: str, object: str = "") -> AuditEntry:
    return AuditEntry(project_id=project_id, who=_user(), key_id=None, action=action, object=object)


def _user() -> str:
    """Who is at this machine. A container's user may have no name."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return f"{name} on {socket.gethostname()}"
