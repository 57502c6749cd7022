"""API keys and login links made on the service's own machine, with its database at hand."""

from collections.abc import Collection
from types import TracebackType
from typing import Self

from hpo_service.access import Scope
from hpo_service.api import auth
from hpo_service.database import make_engine, session_factory
from hpo_service.errors import Unauthenticated
from hpo_service.home import Home
from hpo_service.repository import promotions
from hpo_service.tables import DEFAULT_PROJECT_ID


class Credentials:
    """Makes credentials of project `default`."""

    def __init__(self, database_url: str) -> None:
        self._engine = make_engine(database_url, application_name="hpo-credentials", pool_size=0)
        self._sessions = session_factory(self._engine)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.dispose()

    def create_key(self, label: str, scopes: Collection[Scope] = tuple(Scope)) -> str:
        """A new API key; it cannot be seen again."""
        with self._sessions.begin() as session:
            return auth.create_key(session, DEFAULT_PROJECT_ID, label, scopes)

    def require_approval(self, needed: bool) -> None:
        """Whether promotions that are made from now on need a second key's consent."""
        with self._sessions.begin() as session:
            promotions.set_approval(session, DEFAULT_PROJECT_ID, needed)

    def ensure_admin_key(self, home: Home) -> bool:
        """Keep a key of this database in the home; True if a new one was made."""
        if self._is_valid(home.key()):
            return False
        home.keep_key(self.create_key("admin"))
        return True

    def login_link(self, key: str, url: str) -> str:
        """A link that logs one browser in, once."""
        with self._sessions.begin() as session:
            return auth.create_login_link(session, key, url)

    def _is_valid(self, key: str | None) -> bool:
        if key is None:
            return False
        with self._sessions.begin() as session:
            try:
                auth.authenticate_key(session, key)
            except Unauthenticated:
                return False
        return True
