"""A backup of a study that runs, brought back into an empty database: it goes on and ends as if nothing had been."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.local.local_admin import Credentials
from hpo_service.local.postgres import EmbeddedPostgres
from hpo_service.local.postgres.account import server_account
from hpo_service.local.postgres.binaries import locate
from hpo_service.storage.database import make_engine, prepare, session_factory
from tests import dispatching, serving
from tests.audited import verdict
from tests.conftest import fresh_database
from tests.invariants import broken

SCRIPTS = Path(__file__).parents[2] / "deploy"
SNAPSHOT = "1/1/100/1"


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    """What the scripts are told."""
    (tmp_path / "snapshots").mkdir()
    return {
        "PATH": f"{locate(server_account()).folder}:{os.environ['PATH']}",
        "HPO_DATABASE_URL": database_url,
        "HPO_BACKUPS": str(tmp_path / "backups"),
        "HPO_SNAPSHOTS": str(tmp_path / "snapshots"),
    }


def run(script: str, environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPTS / script, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def back_up(environment: Mapping[str, str]) -> Path:
    done = run("backup.sh", environment)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def rows(engine: Engine) -> dict[str, Any]:
    """Every row of every table, as text."""
    with engine.connect() as connection:
        tables = connection.scalars(
            text(
                "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname IN ('hpo', 'optuna') ORDER BY 1"
            )
        ).all()
        query = "SELECT coalesce(array_agg(r::text ORDER BY r::text), '{}') FROM %s r"
        return {table: connection.execute(text(query % table)).scalar_one() for table in tables}


def losses(url: str) -> list[tuple[str, dict[int, float]]]:
    return [(trial.state.name, trial.intermediate_values) for trial in dispatching.optuna_trials(url)]


def runs(sessions: sessionmaker[Session]) -> bool:
    """Whether a slice runs."""
    with sessions() as session:
        return bool(session.scalar(text("SELECT count(*) FROM hpo.slices WHERE state = 'running'")))


def finish(sessions: sessionmaker[Session], study: int) -> None:
    dispatcher, _ = dispatching.make(sessions)
    dispatching.turn_until(dispatcher, lambda: dispatching.state_of(sessions, study) == "completed")


def test_backup_drop_restore(
    postgres: EmbeddedPostgres,
    database_url: str,
    engine: Engine,
    sessions: sessionmaker[Session],
    environment: dict[str, str],
) -> None:
    snapshots = Path(environment["HPO_SNAPSHOTS"])
    serving.write_snapshot(snapshots, SNAPSHOT)
    dispatcher, _ = dispatching.make(sessions)
    study = dispatching.post_study(sessions)
    dispatching.turn_until(dispatcher, lambda: len(dispatching.events_of(sessions, study)) > 20 and runs(sessions))
    with Credentials(database_url) as credentials:
        credentials.create_project("before")
    before = rows(engine)

    backup = back_up(environment)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA hpo, optuna CASCADE"))
    files = {path.relative_to(snapshots): path.read_bytes() for path in snapshots.rglob("*") if path.is_file()}
    for path in snapshots.rglob("*.safetensors"):
        path.unlink()
    done = run("restore.sh", environment, str(backup))
    assert done.returncode == 0, done.stderr
    prepare(database_url)

    assert rows(engine) == before
    assert {path.relative_to(snapshots): path.read_bytes() for path in snapshots.rglob("*") if path.is_file()} == files
    with Credentials(database_url) as credentials, engine.connect() as connection:
        credentials.create_project("after")
        assert connection.scalar(text("SELECT has_table_privilege('hpo.audit', 'UPDATE')")) is False
    assert (verdict(database_url).broken, verdict(database_url).head.number) == (None, 2)
    dispatching.expire_lease(sessions)
    finish(sessions, study)
    with sessions() as session:
        assert broken(session, settled=True) == []
    with fresh_database(postgres) as other_url:
        undisturbed = make_engine(other_url, application_name="test")
        finish(session_factory(undisturbed), dispatching.post_study(session_factory(undisturbed)))
        assert losses(database_url) == losses(other_url)
        undisturbed.dispose()


def test_a_restore_never_mixes(engine: Engine, environment: dict[str, str]) -> None:
    backup = back_up(environment)
    assert "which is no folder" in run("backup.sh", environment | {"HPO_SNAPSHOTS": "/not/there"}).stderr
    done = run("restore.sh", environment, str(backup))
    assert done.returncode == 1
    assert "hpo and optuna" in done.stderr
    with (backup / "database.dump").open("ab") as dump:
        dump.write(b"x")
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA hpo, optuna CASCADE"))
    done = run("restore.sh", environment, str(backup))
    assert done.returncode == 1
    assert "damaged" in done.stderr
    assert rows(engine) == {}


def test_old_backups_go_and_half_ones_never_count(environment: dict[str, str]) -> None:
    folder = Path(environment["HPO_BACKUPS"])
    for day in (1, 2, 3):
        (folder / f"2026010{day}T000000Z").mkdir(parents=True)
    back_up(environment | {"HPO_BACKUPS_KEEP": "2"})
    assert sorted(path.name for path in folder.iterdir())[0] == "20260103T000000Z"
    assert len(list(folder.iterdir())) == 2
    away = environment["HPO_DATABASE_URL"].replace("/t_", "/not_there_")
    failed = run("backup.sh", environment | {"HPO_DATABASE_URL": away})
    assert failed.returncode != 0
    assert len(list(folder.iterdir())) == 2
    assert run("backup.sh", environment | {"HPO_BACKUPS_KEEP": "0"}).returncode == 2


def test_the_password_is_on_no_command_line(tmp_path: Path) -> None:
    said = tmp_path / "said"
    for tool in ("pg_dump", "pg_restore"):
        fake = tmp_path / tool
        fake.write_text(f'#!/bin/sh\necho "$0 $* / $PGPASSWORD" >> {said}\nexit 1\n')
        fake.chmod(0o755)
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "hpo_database_url").write_text("postgresql+psycopg2://hpo:p%40ss%5Cw%25d@db:5432/hpo?sslmode=require")
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "HPO_SECRETS_DIR": str(secrets),
        "HPO_BACKUPS": str(tmp_path / "backups"),
    }
    assert run("backup.sh", environment).returncode == 1
    arguments, password = said.read_text().splitlines()[0].split(" / ")
    assert password == r"p@ss\w%d"
    assert "--dbname=postgresql://hpo@db:5432/hpo?sslmode=require" in arguments
    assert "p%40" not in arguments
    assert "HPO_DATABASE_URL is not set" in run("backup.sh", environment | {"HPO_SECRETS_DIR": "/none"}).stderr
