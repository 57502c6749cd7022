"""The launcher against real servers: starts, adoption, kills, and what it refuses."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.pool import NullPool

from hpo_service.core.errors import SetupError
from hpo_service.local.postgres import EmbeddedPostgres
from hpo_service.local.postgres.locks import is_held
from hpo_service.local.postgres.place import Place, find_place
from hpo_service.local.postgres.server import postmaster_pid

STARTER = """
import sys
from pathlib import Path
from hpo_service.local.postgres import EmbeddedPostgres
folder = Path(sys.argv[1])
EmbeddedPostgres(folder / "home", fsync=False, fallback=folder / "fallback").start()
"""


def _server(folder: Path, *, fsync: bool = False, timeout: float = 60.0) -> EmbeddedPostgres:
    return EmbeddedPostgres(folder / "home", fsync=fsync, fallback=folder / "fallback", timeout=timeout)


def _place(folder: Path) -> Place:
    place = find_place(folder / "home")
    assert place is not None
    return place


def _pid(folder: Path) -> int:
    pid = postmaster_pid(_place(folder))
    assert pid is not None
    return pid


def _query(server: EmbeddedPostgres, *statements: str) -> object:
    with create_engine(server.url(), poolclass=NullPool).begin() as connection:
        results = [connection.execute(text(statement)) for statement in statements]
        return results[-1].scalar() if results[-1].returns_rows else None


def _fill(server: EmbeddedPostgres) -> None:
    _query(server, "CREATE TABLE public.t AS SELECT * FROM generate_series(1, 1000) n")


def _everything_of(folder: Path) -> list[psutil.Process]:
    data, found = str(_place(folder).data), []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd() == data:
                found.append(process)
    return found


def test_one_server_per_home(postgres_folder: Path) -> None:
    """A second starter adopts the first one's server, and either may stop it; the data stay."""
    first, second = _server(postgres_folder), _server(postgres_folder)
    assert not first.running()
    first.start()
    _fill(first)
    pid = _pid(postgres_folder)
    second.start()
    assert _pid(postgres_folder) == pid
    assert first.running()
    assert second.running()
    second.stop()
    assert not first.running()
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    first.stop()
    first.start()
    assert _query(first, "SELECT count(*) FROM t") == 1000


def test_private_and_detached(postgres_folder: Path) -> None:
    """Passwords and socket are closed to others, nothing listens on TCP, and Ctrl-C does not reach the server."""
    server = _server(postgres_folder)
    server.start()
    place = _place(postgres_folder)
    assert stat.S_IMODE(place.passwords.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.socket_folder.stat().st_mode) == 0o700
    assert _query(server, "SHOW listen_addresses") == ""
    assert _query(server, "SHOW max_connections") == "200"
    assert os.getsid(_pid(postgres_folder)) != os.getsid(0)
    wrong = create_engine(server.url().replace(":", ":x", 2).replace("x//", "//"), poolclass=NullPool)
    with pytest.raises(Exception, match="authentication failed"), wrong.connect():
        pass


def test_postmaster_killed(postgres_folder: Path) -> None:
    """After kill -9 of the postmaster the server is seen as gone, starts again at once, and lost nothing."""
    server = _server(postgres_folder)
    server.start()
    _fill(server)
    killed = _pid(postgres_folder)
    os.kill(killed, signal.SIGKILL)
    server.start()
    assert _pid(postgres_folder) != killed
    assert _query(server, "SELECT count(*) FROM t") == 1000


def test_everything_killed(postgres_folder: Path) -> None:
    """After kill -9 of all its processes the server recovers what was committed."""
    server = _server(postgres_folder, fsync=True)
    server.start()
    _fill(server)
    for process in _everything_of(postgres_folder):
        with suppress(psutil.Error):
            process.kill()
    _wait(lambda: not is_held(_place(postgres_folder).server_lock))
    assert not server.running()
    server.start()
    assert _query(server, "SELECT count(*) FROM t") == 1000


@pytest.mark.parametrize("kind", ["alive", "zombie"])
def test_pid_file_of_somebody_else(postgres_folder: Path, kind: str) -> None:
    """A pid file that names another process, even of the same user, neither hinders the start nor is hurt."""
    server = _server(postgres_folder)
    server.start()
    place = _place(postgres_folder)
    lines = (place.data / "postmaster.pid").read_text().splitlines()
    os.kill(_pid(postgres_folder), signal.SIGKILL)
    user = place.account.uid if place.account.switch else None
    with subprocess.Popen(["sleep", "60" if kind == "alive" else "0"], user=user) as stranger:
        _wait(lambda: kind == "alive" or psutil.Process(stranger.pid).status() == psutil.STATUS_ZOMBIE)
        _wait(lambda: not is_held(place.server_lock))
        for stale in (place.data / "postmaster.pid", place.socket_folder / ".s.PGSQL.5432.lock"):
            stale.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
            stale.chmod(0o644)
        assert not server.running()
        server.stop()
        server.start()
        assert server.running()
        if kind == "alive":
            assert stranger.poll() is None
            stranger.kill()


def test_starters_race(postgres_folder: Path) -> None:
    """Starters of the same fresh home wait for each other; one server comes of it."""
    command = [sys.executable, "-c", STARTER, str(postgres_folder)]
    starters = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    complaints = [starter.communicate(timeout=60)[1] for starter in starters]
    assert [starter.returncode for starter in starters] == [0, 0, 0], complaints
    postmasters = [process for process in _everything_of(postgres_folder) if "-D" in process.cmdline()]
    assert len(postmasters) == 1


def test_starter_killed_half_way(postgres_folder: Path) -> None:
    """A starter killed inside initdb leaves nothing that the next one takes for a database."""
    control = postgres_folder / "home" / "postgres"
    with subprocess.Popen([sys.executable, "-c", STARTER, str(postgres_folder)]) as starter:
        _wait(lambda: (control / "data.part" / "PG_VERSION").exists())
        starter.kill()
    assert not (control / "data").exists()
    server = _server(postgres_folder)
    server.start()
    assert _query(server, "SELECT 1") == 1
    assert not (control / "data.part").exists()


def test_foreign_data_folder(postgres_folder: Path) -> None:
    """A data folder that is no database is refused and left alone."""
    data = postgres_folder / "home" / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "precious").touch()
    with pytest.raises(SetupError, match="has no PG_VERSION"):
        _server(postgres_folder).start()
    assert (data / "precious").exists()


def test_other_major_version(postgres_folder: Path) -> None:
    """A cluster of another major version is refused with instructions and left alone."""
    server = _server(postgres_folder)
    server.start()
    server.stop()
    (_place(postgres_folder).data / "PG_VERSION").write_text("9\n")
    with pytest.raises(SetupError, match=r"made by PostgreSQL 9, .* HPO_PG_BIN.*pg_dump"):
        server.start()


def test_damaged_cluster(postgres_folder: Path) -> None:
    """A server that ends at once is reported at once, with its last words."""
    server = _server(postgres_folder)
    server.start()
    server.stop()
    (_place(postgres_folder).data / "global" / "pg_control").unlink()
    begun = time.monotonic()
    with pytest.raises(SetupError, match=r"ended right after its start: .*pg_control"):
        server.start()
    assert time.monotonic() - begun < 10


def test_lost_passwords(postgres_folder: Path) -> None:
    """Without its password file the database is refused, never replaced by an empty one."""
    server = _server(postgres_folder)
    server.start()
    passwords = _place(postgres_folder).passwords
    kept = passwords.read_text()
    passwords.unlink()
    with pytest.raises(SetupError, match="passwords cannot be read"):
        server.start()
    passwords.write_text(kept.replace('"postgres": "', '"postgres": "x'))
    with pytest.raises(SetupError, match="are not those of the database"):
        server.start()
    passwords.write_text(kept)
    server.start()


def test_home_is_a_file(postgres_folder: Path) -> None:
    """A home that cannot be a folder is refused with the remedy."""
    (postgres_folder / "home").touch()
    with pytest.raises(SetupError, match="HPO_HOME"):
        _server(postgres_folder).start()


def test_before_the_first_start(postgres_folder: Path) -> None:
    """There is no URL yet, nothing runs, and stopping is no error and makes nothing."""
    server = _server(postgres_folder)
    with pytest.raises(SetupError, match="holds no database yet"):
        server.url()
    assert not server.running()
    server.stop()
    assert not (postgres_folder / "home").exists()


def test_killed_test_run_leaves_nothing() -> None:
    """The guardian of the test server cleans up after a test process that was killed."""
    tests = Path(__file__).parents[1]
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(tests)!r})
import conftest
from hpo_service.local.postgres import EmbeddedPostgres
with conftest.guarded_folder(conftest.MEMORY if conftest.MEMORY.is_dir() else conftest.DISK) as folder:
    EmbeddedPostgres(folder / "home", fsync=False, fallback=folder / "fallback").start()
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=False)
    folder = Path(killed.stdout.strip())
    assert killed.returncode == -signal.SIGKILL
    _wait(lambda: not folder.exists())


def _wait(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_a_database_with_a_role_of_its_own(postgres: EmbeddedPostgres, database_url: str) -> None:
    before, url = postgres.own_database("stranger"), postgres.own_database("stranger")
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (n int)")
    for refused in (
        before,  # the password is new each time
        str(url).replace("/stranger?", "/base?"),
        postgres.url("stranger"),
    ):
        with pytest.raises(OperationalError), create_engine(refused, poolclass=NullPool).connect():
            pass
    ours = make_url(url).set(database=make_url(database_url).database)
    with (
        create_engine(ours, poolclass=NullPool).connect() as connection,
        pytest.raises(ProgrammingError, match="denied"),
    ):
        connection.exec_driver_sql("SELECT count(*) FROM hpo.studies")
