"""A real PostgreSQL for the session, a database of its own for every test that asks for one."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.local.postgres import DASHBOARD, SUPERUSER, EmbeddedPostgres
from hpo_service.storage.database import make_engine, prepare, session_factory
from tests import ray_cluster

# Ends the server and removes its folder when the test process is gone, however it went.
_GUARDIAN = """
import pathlib, shutil, sys
from hpo_service.local.postgres import EmbeddedPostgres
sys.stdin.read()
folder = pathlib.Path(sys.argv[1])
if folder.exists():
    EmbeddedPostgres(folder / "home", fallback=folder / "fallback").stop()
    shutil.rmtree(folder, ignore_errors=True)
"""
DISK = Path("/tmp")
MEMORY = Path("/dev/shm")
_MEMORY_NEEDED_BYTES = 2 << 30
_numbers = count(1)


def pytest_configure() -> None:
    """No setting of the caller's shell reaches a test, except which PostgreSQL to run."""
    for name in list(os.environ):
        if name.startswith(("HPO_", "PG", "MLFLOW_", "WANDB_")) and name != "HPO_PG_BIN":
            del os.environ[name]
    # Read once, when the library is imported.
    os.environ.update(ray_cluster.environment())
    # Suites run in several processes, which would fight for the cores.
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"


@contextmanager
def guarded_folder(parent: Path = DISK) -> Iterator[Path]:
    """A short, traversable folder for a database; its server dies and it vanishes even if this process is killed."""
    folder = Path(tempfile.mkdtemp(prefix="hpo-test-", dir=parent))
    folder.chmod(0o755)
    guardian = subprocess.Popen(
        [sys.executable, "-c", _GUARDIAN, str(folder)], stdin=subprocess.PIPE, start_new_session=True
    )
    assert guardian.stdin is not None
    try:
        yield folder
        EmbeddedPostgres(folder / "home", fallback=folder / "fallback").stop()
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        guardian.stdin.close()
        guardian.wait(timeout=60)


@pytest.fixture
def postgres_folder() -> Iterator[Path]:
    """A folder for a server of the test's own: `home` and `fallback` are for it."""
    with guarded_folder(_fast_parent()) as folder:
        yield folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A running server. Its database `base` is prepared and is the template of every test's."""
    with guarded_folder(_fast_parent()) as folder:
        server = EmbeddedPostgres(folder / "home", fsync=False, fallback=folder / "fallback")
        server.start()
        _administer(server, "CREATE DATABASE base OWNER hpo")
        prepare(server.url("base"))
        _administer(server, "ALTER DATABASE base IS_TEMPLATE true ALLOW_CONNECTIONS false")
        yield server


@pytest.fixture
def database_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The owner's URL of a fresh, prepared database; dropped afterwards with whoever is still connected."""
    with fresh_database(postgres) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The owner's URL of a fresh database without any schema of ours."""
    with _database(postgres, "TEMPLATE template0 STRATEGY file_copy") as url:
        yield url


@pytest.fixture
def dashboard_url(postgres: EmbeddedPostgres, database_url: str) -> str:
    """The same database as `database_url`, for the role that may only read."""
    return postgres.url(str(make_url(database_url).database), role=DASHBOARD)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on `database_url`."""
    engine = make_engine(database_url, application_name="test")
    yield engine
    engine.dispose()


@pytest.fixture
def sessions(engine: Engine) -> sessionmaker[Session]:
    """Sessions on `database_url`."""
    return session_factory(engine)


def _fast_parent() -> Path:
    """Copying a template database takes 20 ms in memory and 400 ms on a disk."""
    roomy = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > _MEMORY_NEEDED_BYTES
    return MEMORY if roomy else DISK


@contextmanager
def fresh_database(postgres: EmbeddedPostgres) -> Iterator[str]:
    """A prepared database of its own; the owner's URL."""
    with _database(postgres, "TEMPLATE base STRATEGY file_copy") as url:
        yield url


@contextmanager
def _database(postgres: EmbeddedPostgres, options: str) -> Iterator[str]:
    name = f"t_{next(_numbers)}"
    _administer(postgres, f"CREATE DATABASE {name} {options} OWNER hpo")
    yield postgres.url(name)
    _administer(postgres, f"DROP DATABASE {name} WITH (FORCE)")


def _administer(postgres: EmbeddedPostgres, statement: str) -> None:
    engine = make_engine(postgres.url("postgres", role=SUPERUSER), application_name="fixture", pool_size=0)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(statement))
