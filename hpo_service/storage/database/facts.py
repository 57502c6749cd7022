"""What an operator wants to know of the database: versions, schemas, its clock."""

import time
from dataclasses import dataclass
from importlib.metadata import version

from sqlalchemy import text

from hpo_service.storage.database.engine import OPTUNA_SCHEMA, make_engine, optuna_url
from hpo_service.storage.database.preparation import VERSION_TABLE, head
from hpo_service.storage.tables import SCHEMA

_FACTS = text(
    f"""
    SELECT current_setting('server_version') AS server, pg_database_size(current_database()) AS size_bytes,
           to_regclass('{SCHEMA}.{VERSION_TABLE}') IS NOT NULL AS ours,
           to_regclass('{OPTUNA_SCHEMA}.{VERSION_TABLE}') IS NOT NULL AS optunas,
           current_setting('max_connections')::int AS most_connections,
           (SELECT count(*) FROM pg_stat_activity) AS connections
    """  # noqa: S608
)
_REVISION = text(f"SELECT version_num FROM {SCHEMA}.{VERSION_TABLE}")  # noqa: S608
_CLOCK = text("SELECT extract(epoch FROM clock_timestamp())::float")


@dataclass(frozen=True, kw_only=True)
class DatabaseFacts:
    """`clock_ahead_seconds`: of this machine's clock. Revisions are None where the schema is not there.

    `optuna_revision` and `optuna_head` are those of Optuna's own tables, in the database and of the installed library.
    """

    server: str
    size_bytes: int
    connections: int
    most_connections: int
    clock_ahead_seconds: float
    revision: str | None
    head: str
    optuna_revision: str | None
    optuna_head: str
    optuna_library: str


def read_facts(url: str) -> DatabaseFacts:
    """Look at the database of `url`. Raises SetupError or the driver's errors if it does not answer."""
    engine = make_engine(url, application_name="hpo-doctor", pool_size=0)
    try:
        with engine.connect() as connection:
            facts = connection.execute(_FACTS).one()
            before = time.time()
            theirs = connection.execute(_CLOCK).scalar_one()
            ours = (before + time.time()) / 2
            revision = connection.scalar(_REVISION) if facts.ours else None
    finally:
        engine.dispose()
    current, newest = _optuna_revisions(url) if facts.optunas else (None, "")
    return DatabaseFacts(
        server=facts.server,
        size_bytes=facts.size_bytes,
        connections=facts.connections,
        most_connections=facts.most_connections,
        clock_ahead_seconds=ours - theirs,
        revision=revision,
        head=head(),
        optuna_revision=current,
        optuna_head=newest,
        optuna_library=version("optuna"),
    )


def _optuna_revisions(url: str) -> tuple[str | None, str]:
    from optuna.storages import RDBStorage
    from sqlalchemy.pool import NullPool

    storage = RDBStorage(
        optuna_url(url),
        engine_kwargs={"poolclass": NullPool},
        skip_table_creation=True,
        skip_compatibility_check=True,
    )
    try:
        return storage.get_current_version(), storage.get_head_version()
    finally:
        storage.remove_session()
        storage.engine.dispose()
