"""Brings a database to what this version needs: our migrations, Optuna's tables, the dashboard's rights."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

import migrations
from hpo_service.core.errors import SetupError, Unavailable
from hpo_service.storage.database.engine import OPTUNA_SCHEMA, describe, make_engine, optuna_url
from hpo_service.storage.tables import SCHEMA

if TYPE_CHECKING:
    from alembic.config import Config

DASHBOARD_ROLE = "hpo_dashboard"
VERSION_TABLE = "alembic_version"
_ADVISORY_LOCK = 4_855_279_241  # "hpo" and a number, the same in every version
_PATIENCE = timedelta(seconds=60)
_INSUFFICIENT_PRIVILEGE = "42501"
_LOCK_NOT_AVAILABLE = "55P03"

_FACTS = text(f"""
    SELECT current_setting('server_encoding') AS encoding,
           to_regclass('{SCHEMA}.{VERSION_TABLE}') IS NOT NULL AS ours,
           to_regclass('{OPTUNA_SCHEMA}.{VERSION_TABLE}') IS NOT NULL AS optunas,
           (SELECT bool_and(has_table_privilege(role.oid, tab.oid, 'SELECT')
                            AND has_schema_privilege(role.oid, tab.relnamespace, 'USAGE'))
              FROM pg_roles role, pg_class tab
             WHERE role.rolname = '{DASHBOARD_ROLE}' AND tab.relkind = 'r'
               AND tab.relnamespace = to_regnamespace('{OPTUNA_SCHEMA}')) AS readable
""")  # noqa: S608


@dataclass(frozen=True)
class _State:
    ours: str | None
    optunas: str | None
    granted: bool

    @property
    def complete(self) -> bool:
        return self.ours == head() and self.optunas is not None and self.granted


def prepare(url: str) -> None:
    """Bring the database to the schemas of this version; quick where nothing is to do. Safe to run at the same time.

    Raises Unavailable where the server does not answer, SetupError where the role lacks a right or the database was
    made by a newer version.
    """
    engine = make_engine(
        url, application_name="hpo-prepare", pool_size=0, statement_timeout=10 * _PATIENCE, lock_timeout=_PATIENCE
    )
    with _explained(url), engine.connect() as plain:
        connection = plain.execution_options(isolation_level="AUTOCOMMIT")
        if _state(connection).complete:
            return
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _ADVISORY_LOCK})
        state = _state(connection)
        for schema in (SCHEMA, OPTUNA_SCHEMA):
            _create_schema(connection, schema)
        if state.ours != head():
            upgrade(engine)
        if state.optunas is None:
            _create_optuna_tables(url)
        _grant_dashboard(connection)


def head() -> str:
    """The newest revision of ours. Its number begins the file's name, so that alembic need not be loaded to know it."""
    versions = Path(migrations.__file__).parent / "versions"
    return max(path.name.split("_")[0] for path in versions.glob("[0-9]*.py"))


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Run our migrations up to `revision`, in one transaction."""
    from alembic import command

    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), revision)


def downgrade(engine: Engine, revision: str) -> None:
    """Undo our migrations down to `revision` ("base": all), in one transaction."""
    from alembic import command

    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), revision)


def alembic_config(connection: Connection) -> "Config":
    """Alembic's configuration for our migrations over `connection`."""
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    return config


def _state(connection: Connection) -> _State:
    facts = connection.execute(_FACTS).one()
    if facts.encoding != "UTF8":
        raise SetupError(
            f"The database's encoding is {facts.encoding}, but must be UTF8. Create it with ENCODING 'UTF8'."
        )
    ours = _revision(connection, SCHEMA) if facts.ours else None
    if ours is not None and ours > head():
        raise SetupError(
            f"The database is at revision {ours} of a newer version of this program; this one knows revisions up to "
            f"{head()}. Upgrade the program, or restore a backup of that time."
        )
    optunas = _revision(connection, OPTUNA_SCHEMA) if facts.optunas else None
    return _State(ours=ours, optunas=optunas, granted=facts.readable is not False)


def _revision(connection: Connection, schema: str) -> str | None:
    found = connection.execute(text(f"SELECT version_num FROM {schema}.{VERSION_TABLE}")).scalar_one_or_none()  # noqa: S608
    return None if found is None else str(found)


def _create_schema(connection: Connection, schema: str) -> None:
    # Not IF NOT EXISTS: that needs the right to create even where the schema exists.
    if connection.execute(text("SELECT to_regnamespace(:schema)"), {"schema": schema}).scalar() is None:
        connection.execute(text(f"CREATE SCHEMA {schema}"))


def _create_optuna_tables(url: str) -> None:
    from optuna.storages import RDBStorage

    storage = RDBStorage(optuna_url(url), engine_kwargs={"poolclass": NullPool})
    storage.remove_session()
    storage.engine.dispose()


def _grant_dashboard(connection: Connection) -> None:
    known = connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": DASHBOARD_ROLE})
    if known.scalar() is None:
        return
    for statement in (
        f"GRANT USAGE ON SCHEMA {OPTUNA_SCHEMA} TO {DASHBOARD_ROLE}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA {OPTUNA_SCHEMA} TO {DASHBOARD_ROLE}",
        f"ALTER DEFAULT PRIVILEGES IN SCHEMA {OPTUNA_SCHEMA} GRANT SELECT ON TABLES TO {DASHBOARD_ROLE}",
    ):
        connection.execute(text(statement))


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turn the driver's errors into ours."""
    try:
        yield
    except DBAPIError as error:
        code = getattr(error.orig, "pgcode", None)
        reason = " ".join(str(error.orig).split())
        if code == _INSUFFICIENT_PRIVILEGE:
            raise SetupError(
                f"The role of the database URL lacks a right in the {describe(url)}: {reason}. Make it the owner of "
                f"the database, or of the schemas '{SCHEMA}' and '{OPTUNA_SCHEMA}'."
            ) from error
        if code == _LOCK_NOT_AVAILABLE:
            raise Unavailable(
                f"Another process has been changing the {describe(url)} for over {_PATIENCE.seconds} s. "
                "Wait until it is done, or end it, and try again."
            ) from error
        if isinstance(error, OperationalError):
            raise Unavailable(
                f"The {describe(url)} does not answer: {reason}. Check HPO_DATABASE_URL, and that the server runs and "
                "lets this user in."
            ) from error
        raise SetupError(f"The {describe(url)} cannot be prepared: {reason}. Correct it and start again.") from error
