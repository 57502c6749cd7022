"""Projects, API keys and login links made on the service's own machine, with its database at hand."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from sqlalchemy.orm import Session

from hpo_service.access import Scope, authenticate_key, create_key, create_login_link, parse_key
from hpo_service.database import make_engine, session_factory
from hpo_service.errors import Unauthenticated
from hpo_service.home import Home
from hpo_service.repository import projects as stored_projects
from hpo_service.repository import promotions
from hpo_service.studies import keys, projects
from hpo_service.studies.key_documents import KeyDocument, NewKeyDocument, ProjectDocument
from hpo_service.tables import DEFAULT_PROJECT_ID

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
        with self._sessions.begin() as session:
            return projects.create(session, name)

    def list_projects(self) -> list[ProjectDocument]:
        """The oldest first."""
        with self._sessions.begin() as session:
            return projects.list_projects(session, page_size=_MOST, page_token=None).items

    def create_key(
        self, label: str, scopes: Collection[Scope], *, project: str, lifetime_seconds: int | None
    ) -> NewKeyDocument:
        """A new API key; it cannot be seen again. Raises as `studies.keys.create`."""
        with self._project(project) as (session, project_id):
            return keys.create(
                session, project_id, label, scopes, granter=tuple(Scope), lifetime_seconds=lifetime_seconds
            )

    def list_keys(self, project: str) -> list[KeyDocument]:
        """The newest first, ended ones too."""
        with self._project(project) as (session, project_id):
            return keys.list_keys(session, project_id, page_size=_MOST, page_token=None).items

    def rotate_key(self, label: str, home: Home, *, project: str, overlap_seconds: int) -> NewKeyDocument:
        """A second key of the label, which the home keeps if it had the first one. Raises as `studies.keys.rotate`."""
        with self._project(project) as (session, project_id):
            made = keys.rotate(session, project_id, label, granter=tuple(Scope), overlap_seconds=overlap_seconds)
        kept = parse_key(home.key() or "")
        if kept and made.replaces and kept[0] == made.replaces.id:
            home.keep_key(made.key)
        return made

    def revoke_key(self, key_id: int, project: str) -> KeyDocument:
        """Raises as `studies.keys.revoke`."""
        with self._project(project) as (session, project_id):
            return keys.revoke(session, project_id, key_id)

    def require_approval(self, needed: bool, project: str) -> None:
        """Whether promotions that are made from now on need a second key's consent."""
        with self._project(project) as (session, project_id):
            promotions.set_approval(session, project_id, needed)

    def ensure_admin_key(self, home: Home) -> bool:
        """Keep a key of this database in the home; True if a new one was made. It never expires."""
        if self._is_valid(home.key()):
            return False
        with self._sessions.begin() as session:
            key = create_key(session, DEFAULT_PROJECT_ID, ADMIN)
        home.keep_key(key)
        return True

    def login_link(self, key: str, url: str) -> str:
        """A link that logs one browser in, once."""
        with self._sessions.begin() as session:
            return create_login_link(session, key, url)

    @contextmanager
    def _project(self, name: str) -> Iterator[tuple[Session, int]]:
        with self._sessions.begin() as session:
            yield session, stored_projects.find(session, name).id

    def _is_valid(self, key: str | None) -> bool:
        if key is None:
            return False
        with self._sessions.begin() as session:
            try:
                authenticate_key(session, key)
            except Unauthenticated:
                return False
        return True
