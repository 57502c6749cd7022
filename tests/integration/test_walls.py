"""PostgreSQL itself keeps projects apart: a query that forgets the project finds nothing of another one."""

from collections.abc import Sequence

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, create_engine, func, select, text, update
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool

import hpo_service.storage.audit_tables
import hpo_service.storage.promotion_tables  # noqa: F401 (its tables belong to the metadata)
from hpo_service.storage.database.tenancy import NO_PROJECT, ProjectSessions
from hpo_service.storage.queries import studies
from hpo_service.storage.tables import DEFAULT_PROJECT_ID, Base, Event, Intent, Project, Study, Worker
from tests import serving

Sessions = sessionmaker[Session]
_SERVICE = {"workers"}  #: shown to all, see the migration


@pytest.fixture
def other(sessions: Sessions) -> int:
    """Id of a second project."""
    return serving.make_project(sessions, "other")


@pytest.fixture
def both(sessions: Sessions, other: int) -> dict[int, int]:
    """A study of the same name in each project, with an intent: study by project."""
    found = {}
    with sessions.begin() as session:
        for project in (DEFAULT_PROJECT_ID, other):
            study = studies.add(session, project, name="same", spec={}, resolved={}, state="queued")
            session.add_all(
                [
                    Intent(project_id=project, study_id=study.id, kind="create", payload={"of": project}),
                    Event(project_id=project, study_id=study.id, kind="study.state", payload={}),
                ]
            )
            found[project] = study.id
    return found


def test_every_table_has_a_wall(engine: Engine) -> None:
    """A table of ours without one: its migration has to call `migrations.walls.raise_wall`."""
    query = text(
        """
        SELECT c.relname FROM pg_class c
         WHERE c.relnamespace = 'hpo'::regnamespace AND c.relkind = 'r' AND c.relrowsecurity AND c.relforcerowsecurity
           AND EXISTS (SELECT 1 FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'project' AND p.polcmd = '*')
        """
    )
    with engine.connect() as connection:
        assert set(connection.scalars(query)) == {table.name for table in Base.metadata.tables.values()}


def test_a_query_without_the_project_finds_its_own_only(engine: Engine, both: dict[int, int]) -> None:
    for project, study in both.items():
        with ProjectSessions(engine).of(project).begin() as session:
            assert session.scalars(select(Study.id)).all() == [study]
            assert session.scalars(select(Intent.project_id)).all() == [project]
            assert session.scalars(select(Project.id)).all() == [project]
            for table in Base.metadata.sorted_tables:
                column = table.c.id if table.name == "projects" else table.c.project_id
                if table.name not in _SERVICE:
                    assert set(session.scalars(select(column))) <= {project}


def test_nothing_of_another_project_can_be_written(engine: Engine, both: dict[int, int], other: int) -> None:
    mine = ProjectSessions(engine).of(DEFAULT_PROJECT_ID)
    with mine.begin() as session:
        changed = session.execute(update(Study).values(message="mine").returning(Study.id)).scalars().all()
        assert changed == [both[DEFAULT_PROJECT_ID]]
        session.execute(text("DELETE FROM hpo.events"))
    with pytest.raises(ProgrammingError, match="row-level security"), mine.begin() as session:
        session.add(Intent(project_id=other, study_id=both[other], kind="cancel"))
    with pytest.raises(ProgrammingError, match="row-level security"), mine.begin() as session:
        session.execute(update(Study).values(project_id=other))
    with ProjectSessions(engine).of(other).begin() as session:
        assert session.scalars(select(Study.message)).all() == [""]
        assert session.scalar(select(func.count()).select_from(Event)) == 1


def test_the_project_ends_with_the_transaction(engine: Engine, both: dict[int, int]) -> None:
    """Connections are shared: what one transaction may see says nothing of the next one."""
    narrow = ProjectSessions(engine)
    with engine.connect() as connection, Session(connection) as session:
        assert len(session.scalars(select(Study.id)).all()) == 2
    for project, seen in ((DEFAULT_PROJECT_ID, 1), (NO_PROJECT, 0)):
        with narrow.of(project)() as session:
            for _ in range(2):
                assert len(session.scalars(select(Study.id)).all()) == seen
                session.commit()
            with session.begin_nested():
                assert len(session.scalars(select(Study.id)).all()) == seen
            session.rollback()
            assert len(session.scalars(select(Study.id)).all()) == seen
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM hpo.studies")) == 2


def test_who_names_no_project_sees_nothing(database_url: str, both: dict[int, int]) -> None:
    """Another program with the owner's password has to say what it wants to see."""
    engine = create_engine(database_url, poolclass=NullPool)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM hpo.studies")) == 0
        connection.execute(text("SET hpo.project_id = '*'"))
        assert connection.scalar(text("SELECT count(*) FROM hpo.studies")) == len(both)


def test_workers_belong_to_the_service(engine: Engine, sessions: Sessions, other: int) -> None:
    """A trial says which machine it was on; nobody but the first project changes what is written of machines."""
    with sessions.begin() as session:
        session.add(Worker(project_id=DEFAULT_PROJECT_ID, executor="local", name="w", state="ready", epoch=1))
    with ProjectSessions(engine).of(other).begin() as session:
        assert session.scalars(select(Worker.name)).all() == ["w"]
        assert session.execute(update(Worker).values(message="x").returning(Worker.id)).all() == []


def test_a_route_that_forgot_the_project(
    client: TestClient, sessions: Sessions, other: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def everything(session: Session, *_: object, **__: object) -> Sequence[Study]:
        return session.scalars(select(Study)).all()

    monkeypatch.setattr(studies, "newest_first", everything)
    theirs = serving.bearer(serving.make_key(sessions, other))
    client.post("/v1/studies", json=serving.spec("mine")).raise_for_status()
    client.post("/v1/studies", json=serving.spec("theirs"), headers=theirs).raise_for_status()
    assert [study["name"] for study in client.get("/v1/studies").json()["items"]] == ["mine"]
    assert [study["name"] for study in client.get("/v1/studies", headers=theirs).json()["items"]] == ["theirs"]
