"""Preparing real databases, the roles' rights, and what our connections are."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import optuna
import pytest
from optuna.storages import RDBStorage
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, ProgrammingError

from hpo_service.core.errors import SetupError, Unavailable
from hpo_service.local.postgres import SUPERUSER, EmbeddedPostgres
from hpo_service.storage.database import make_engine, optuna_url, prepare


def _run(url: str, statement: str) -> object:
    with make_engine(url, application_name="test", pool_size=0).begin() as connection:
        result = connection.execute(text(statement))
        return result.scalar() if result.returns_rows else None


def test_prepare_is_quick_when_done(database_url: str) -> None:
    """A second call does nothing, and loads neither Optuna nor alembic for it."""
    begun = time.monotonic()
    prepare(database_url)
    assert time.monotonic() - begun < 0.5
    script = (
        "import sys; from hpo_service.storage.database import prepare; prepare(sys.argv[1]);"
        "print(sorted({'optuna', 'alembic'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", script, database_url], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_prepare_at_the_same_time(empty_database_url: str) -> None:
    """Several processes may start on an empty database at once."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(prepare, [empty_database_url] * 4))
    assert _run(empty_database_url, "SELECT count(*) FROM hpo.projects") == 1
    assert _run(empty_database_url, "SELECT count(*) FROM optuna.version_info") == 1


def test_prepare_goes_on_after_a_kill(empty_database_url: str) -> None:
    """A database that was left half prepared is completed."""
    _run(empty_database_url, "CREATE SCHEMA hpo")
    _run(empty_database_url, "CREATE SCHEMA optuna")
    prepare(empty_database_url)
    _run(empty_database_url, "DELETE FROM optuna.alembic_version")
    _run(empty_database_url, "REVOKE SELECT ON optuna.trials FROM hpo_dashboard")
    prepare(empty_database_url)
    assert _run(empty_database_url, "SELECT count(*) FROM optuna.alembic_version") == 1
    assert _run(empty_database_url, "SELECT has_table_privilege('hpo_dashboard', 'optuna.trials', 'SELECT')") is True


def test_optuna_reads_and_writes(database_url: str) -> None:
    """Optuna finds its tables under our URL, and makes none elsewhere."""
    study = optuna.create_study(storage=RDBStorage(optuna_url(database_url)), study_name="s")
    study.tell(study.ask(), 1.0)
    assert optuna.load_study(study_name="s", storage=optuna_url(database_url)).best_value == 1.0
    assert _run(database_url, "SELECT count(*) FROM optuna.trials") == 1
    assert _run(database_url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0


def test_dashboard_may_only_read(database_url: str, dashboard_url: str) -> None:
    """The dashboard's role reads Optuna's tables, future ones too, changes none, and sees nothing of ours."""
    _run(database_url, "CREATE TABLE optuna.later (n int)")
    assert _run(dashboard_url, "SELECT count(*) FROM optuna.later") == 0
    assert _run(dashboard_url, "SELECT count(*) FROM optuna.studies") == 0
    for forbidden in (
        "INSERT INTO optuna.studies (study_id, study_name) VALUES (1, 'x')",
        "DELETE FROM optuna.studies",
        "SELECT * FROM hpo.api_keys",
        "CREATE TABLE optuna.mine (n int)",
        "CREATE TABLE public.mine (n int)",
    ):
        with pytest.raises(ProgrammingError, match="permission denied"):
            _run(dashboard_url, forbidden)
    storage = RDBStorage(optuna_url(dashboard_url), skip_table_creation=True, skip_compatibility_check=True)
    assert storage.get_all_studies() == []


def test_no_server(postgres: EmbeddedPostgres) -> None:
    """A server that does not answer and a database that does not exist are named, the password is not."""
    url = postgres.url("nowhere")
    for broken in (url, "postgresql://user:secret@127.0.0.1:1/db"):
        with pytest.raises(Unavailable, match="does not answer") as raised:
            prepare(broken)
        assert str(make_url(broken).password) not in str(raised.value)


def test_role_without_rights(dashboard_url: str, empty_database_url: str, postgres: EmbeddedPostgres) -> None:
    """A role that may not create schemas is told what to do; one that may not read ours too."""
    weak = postgres.url(str(make_url(empty_database_url).database), role="hpo_dashboard")
    for url in (weak, dashboard_url):
        with pytest.raises(SetupError, match=r"lacks a right .* Make it the owner"):
            prepare(url)


def test_newer_database(database_url: str) -> None:
    """A database of a newer version is refused and left alone."""
    _run(database_url, "UPDATE hpo.alembic_version SET version_num = '9999'")
    with pytest.raises(SetupError, match="revision 9999 of a newer version"):
        prepare(database_url)


def test_other_encoding(postgres: EmbeddedPostgres) -> None:
    """A database that cannot hold every name is refused."""
    admin = make_engine(postgres.url("postgres", role=SUPERUSER), application_name="test", pool_size=0)
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0 OWNER hpo"))
        with pytest.raises(SetupError, match="SQL_ASCII, but must be UTF8"):
            prepare(postgres.url("ascii"))
        connection.execute(text("DROP DATABASE ascii WITH (FORCE)"))


def test_connection_settings(engine: Engine, database_url: str) -> None:
    """Names mean the same for every role, times are UTC, and each session says who it is."""
    with engine.connect() as connection:
        shown = {
            name: connection.execute(text(f"SHOW {name}")).scalar()
            for name in ("search_path", "timezone", "application_name", "lock_timeout", "statement_timeout")
        }
    assert shown == {
        "search_path": "public",
        "timezone": "UTC",
        "application_name": "test",
        "lock_timeout": "10s",
        "statement_timeout": "30s",
    }
    assert _run(optuna_url(database_url), "SHOW search_path") == "optuna"


def test_statements_end_in_time(database_url: str) -> None:
    """A statement that takes too long fails, without its parameters in the message."""
    engine = make_engine(
        database_url, application_name="test", pool_size=0, statement_timeout=timedelta(milliseconds=50)
    )
    with engine.connect() as connection, pytest.raises(DBAPIError, match="statement timeout") as raised:
        connection.execute(text("SELECT pg_sleep(5), :word"), {"word": "secret"})
    assert "secret" not in str(raised.value)


def test_pool_survives_disconnection(engine: Engine, database_url: str) -> None:
    """Connections that the server has closed are replaced unnoticed."""
    with engine.connect() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar()
    _run(database_url, f"SELECT pg_terminate_backend({pid}, 1000)")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
