"""Our migrations and our tables agree, forwards and backwards."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

import hpo_service.storage.audit_tables
import hpo_service.storage.promotion_tables  # noqa: F401 (its tables belong to the metadata)
from hpo_service.storage.database.preparation import alembic_config, downgrade, head, upgrade
from hpo_service.storage.tables import DEFAULT_PROJECT_ID, SCHEMA, Base


def _only_ours(name: str | None, kind: str, _parents: object) -> bool:
    return name == SCHEMA if kind == "schema" else True


def _differences(connection: Connection) -> list[object]:
    options = {
        "include_schemas": True,
        "include_name": _only_ours,
        "version_table_schema": SCHEMA,
        "compare_type": True,
        "compare_server_default": True,
    }
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata))


def _tables(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        return set(connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'hpo'")))


def test_up_down_up(engine: Engine) -> None:
    """The migrations make exactly the tables that the code declares; down removes them all; up again works."""
    declared = {table.name for table in Base.metadata.tables.values()}
    with engine.connect() as connection:
        assert _differences(connection) == []
    assert _tables(engine) == declared | {"alembic_version"}
    downgrade(engine, "base")
    assert _tables(engine) == {"alembic_version"}
    upgrade(engine)
    with engine.connect() as connection:
        assert _differences(connection) == []


def test_default_project(engine: Engine) -> None:
    """Project 1 exists and the next one gets another number."""
    with engine.begin() as connection:
        assert connection.execute(text("SELECT id, name FROM hpo.projects")).all() == [(DEFAULT_PROJECT_ID, "default")]
        added = connection.execute(text("INSERT INTO hpo.projects (name) VALUES ('second') RETURNING id"))
        assert added.scalar_one() == DEFAULT_PROJECT_ID + 1


def test_head_from_file_names(engine: Engine) -> None:
    """The head that we read off the file names is the one that alembic finds, and there is a single one."""
    with engine.connect() as connection:
        assert ScriptDirectory.from_config(alembic_config(connection)).get_heads() == [head()]
