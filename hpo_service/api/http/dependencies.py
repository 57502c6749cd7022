"""What endpoints ask for: a transaction, the caller, the settings."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.api.http.audit_trail import SAFE_METHODS, changing_entry
from hpo_service.api.http.auth import Principal
from hpo_service.core.settings import Settings
from hpo_service.services.access import audit
from hpo_service.storage.database.tenancy import NO_PROJECT, ProjectSessions
from trainer.common.failpoints import Commit, after_commit, before_commit
from trainer.snapshots.stores import Store

#: What a request reads is of one moment. Else the dispatcher may do what was wanted between two of its statements, and
#: the answer shows it as neither wanted nor done.
_ONE_MOMENT = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


def _session(request: Request) -> Iterator[Session]:
    yield from _transaction(request, _sessions(request), reads=request.method in SAFE_METHODS)


def _unconfined_session(request: Request) -> Iterator[Session]:
    # Following a link that logs in is a GET that writes.
    yield from _transaction(request, request.app.state.unconfined_sessions, reads=False)


def _transaction(request: Request, sessions: sessionmaker[Session], *, reads: bool) -> Iterator[Session]:
    changes = request.method not in SAFE_METHODS
    with sessions.begin() as session:
        if reads:
            session.connection(execution_options=_ONE_MOMENT)
        if (entry := changing_entry(request.scope)) is not None:
            audit.watch(session, entry)
        yield session
        if changes:
            before_commit(Commit.STEER)
    if changes:
        after_commit(Commit.STEER)


def _sessions(request: Request) -> sessionmaker[Session]:
    principal: Principal | None = getattr(request.state, "principal", None)
    sessions: ProjectSessions = request.app.state.project_sessions
    project_id = NO_PROJECT if principal is None else principal.project_id
    entry = changing_entry(request.scope)
    return sessions.of(project_id) if entry is None else sessions.told(project_id, audit.watching(entry))


def _principal(request: Request) -> Principal:
    principal = request.state.principal
    assert isinstance(principal, Principal)
    return principal


def _settings(request: Request) -> Settings:
    settings = request.app.state.settings
    assert isinstance(settings, Settings)
    return settings


def _store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


PrincipalDependency = Annotated[Principal, Depends(_principal)]
"""The caller, for what not every key may do."""


def _project(request: Request) -> int:
    return _principal(request).project_id


SessionDependency = Annotated[Session, Depends(_session, scope="function")]
"""One transaction over the caller's project only, committed before the answer is sent, rolled back on any error."""
UnconfinedSessionDependency = Annotated[Session, Depends(_unconfined_session, scope="function")]
"""The same over all projects: for logging in, when it is not known yet who asks, and for what administers projects."""
SessionsDependency = Annotated[sessionmaker[Session], Depends(_sessions)]
"""For endpoints that read files or wait: they open short transactions themselves."""
SettingsDependency = Annotated[Settings, Depends(_settings)]
StoreDependency = Annotated[Store, Depends(_store)]
"""The snapshot store."""
ProjectDependency = Annotated[int, Depends(_project)]
"""Id of the caller's project."""
