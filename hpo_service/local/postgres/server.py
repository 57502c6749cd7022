"""Start, adopt, reach and stop the one server of an HPO_HOME."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
from sqlalchemy.engine import URL

from hpo_service.core.errors import SetupError
from hpo_service.local.postgres import binaries, cluster, locks, roles
from hpo_service.local.postgres.account import server_account
from hpo_service.local.postgres.place import Place, control_folder, find_place, settle

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

FALLBACK = Path("/var/lib/hpo")


class EmbeddedPostgres:
    """The PostgreSQL server of `home`. Any number of objects and processes may speak for the same server.

    `fsync=False` (tests) is quicker and survives killed processes, but not a crash of the machine. `fallback`: where
    root's clusters go whose home the server's user cannot reach. `timeout`: seconds to wait for the server, crash
    recovery included.
    """

    def __init__(self, home: Path, *, fsync: bool = True, fallback: Path = FALLBACK, timeout: float = 60.0) -> None:
        self.home = home.expanduser().resolve()
        self._fsync = fsync
        self._fallback = fallback
        self._timeout = timeout

    def start(self) -> None:
        """Make the cluster where there is none, start the server where it does not run. Returns when it answers.

        Raises SetupError where the machine or the folders do not allow it.
        """
        control = control_folder(self.home)
        with self._explained():
            control.mkdir(parents=True, exist_ok=True)
            with locks.exclusive(control / "start.lock", timeout=self._timeout + 30):
                place = find_place(self.home)
                if place is None or (connection := _connect(place)) is None:
                    place, connection = self._launch(place)
                with closing(connection):
                    roles.ensure_roles(connection, roles.read_passwords(place.passwords))

    def running(self) -> bool:
        """Whether the server answers a query now."""
        with self._explained():
            place = find_place(self.home)
            connection = _connect(place) if place else None
        if connection is None:
            return False
        try:
            with closing(connection), connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        except psycopg2.Error:
            return False
        return True

    def url(self, database: str = roles.DATABASE, role: str = roles.OWNER) -> str:
        """The SQLAlchemy URL (psycopg2, Unix socket) of `database` for `role`; a secret, as it holds the password.

        Raises SetupError before the first start.
        """
        with self._explained():
            place = self._place()
            return _url(place, database, role, roles.read_passwords(place.passwords)[role])

    def own_database(self, name: str) -> str:
        """The URL of a database that belongs to a role of its own, both called `name` and made if missing.

        The server must run. The password is new each time and not kept. Raises SetupError.
        """
        with self._explained():
            place = self._place()
            connection = _connect(place)
            if connection is None:
                raise SetupError(_still_there(place, "does not answer"))
            with closing(connection):
                return _url(place, name, name, roles.ensure_own_database(connection, name))

    def stop(self) -> None:
        """Stop the server whoever started it; clients are disconnected. Does nothing where it does not run."""
        control = control_folder(self.home)
        with self._explained():
            if not control.is_dir():
                return
            with locks.exclusive(control / "start.lock", timeout=self._timeout + 30):
                place = find_place(self.home)
                if place is not None:
                    _end(place)

    def _place(self) -> Place:
        place = find_place(self.home)
        if place is None:
            raise SetupError(f"HPO_HOME ({self.home}) holds no database yet. Start the service with 'hpo up'.")
        return place

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, subprocess.SubprocessError, psycopg2.Error) as error:
            raise SetupError(
                f"The database under HPO_HOME ({self.home}) cannot be used: {str(error).strip()}. Choose a folder that "
                "you can write to with HPO_HOME, or set HPO_DATABASE_URL to a server of yours."
            ) from error

    def _launch(self, place: Place | None) -> "tuple[Place, Connection]":
        account = place.account if place else server_account()
        found = binaries.locate(account)
        place = place or settle(self.home, self._fallback, found, account)
        if not account.can_enter(place.folder):
            raise SetupError(
                f"The database lives in {place.folder}, which the user {account.name!r}, who runs PostgreSQL for root, "
                "cannot traverse any more. Give others the right to traverse (x) on the folders above it, or move it."
            )
        lock = self._server_lock_or_connection(place)
        if not isinstance(lock, int):
            return place, lock
        try:
            if not found.reachable_by(account):
                found = found.copied_to(place.folder)
            if not (place.data / "PG_VERSION").exists():
                cluster.create(place, found, fsync=self._fsync, lock=lock)
            cluster.check_version(place, found)
            position = self._spawn(place, found, lock)
        finally:
            os.close(lock)
        return place, self._await_answer(place, position)

    def _spawn(self, place: Place, found: binaries.Binaries, lock: int) -> int:
        """Start the server; returns the log's length before."""
        place.make_socket_folder()
        cluster.remove_stale_files(place)
        cluster.configure(place, fsync=self._fsync)
        log = cluster.open_log(place)
        try:
            position = os.fstat(log).st_size
            # The shell leaves the server to init: the caller gets no child to reap. Arguments stay a list.
            detach: list[str | Path] = ["sh", "-c", '"$@" &', "sh"]
            server: list[str | Path] = [found.postgres, "-D", place.data, "-c", f"config_file={place.config}"]
            place.account.run(detach + server, output=log, keep=(lock,))
        finally:
            os.close(log)
        return position

    def _server_lock_or_connection(self, place: Place) -> "int | Connection":
        """The lock, once every process of an earlier server is gone; a connection if that server answers meanwhile."""
        deadline = time.monotonic() + self._timeout
        while (lock := locks.try_lock(place.server_lock)) is None:
            if (connection := _connect(place)) is not None:
                return connection
            if time.monotonic() > deadline:
                raise SetupError(_still_there(place, f"does not answer for {self._timeout:.0f} s"))
            time.sleep(locks.POLL_SECONDS)
        return lock

    def _await_answer(self, place: Place, position: int) -> "Connection":
        deadline = time.monotonic() + self._timeout
        while time.monotonic() < deadline:
            alive = locks.is_held(place.server_lock)
            if (connection := _connect(place)) is not None:
                return connection
            if not alive:
                raise SetupError(
                    f"PostgreSQL ended right after its start: {cluster.log_since(place, position)}. "
                    f"Its log is {place.log}."
                )
            time.sleep(locks.POLL_SECONDS)
        raise SetupError(_still_there(place, f"does not answer for {self._timeout:.0f} s"))


def _end(place: Place) -> None:
    for sign, seconds in ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0)):
        deadline = time.monotonic() + seconds
        signalled = None
        while time.monotonic() < deadline:
            if not locks.is_held(place.server_lock):
                return
            # A server that has only just begun has no pid file yet.
            if (pid := postmaster_pid(place)) is not None and pid != signalled:
                signalled = pid
                with suppress(ProcessLookupError):
                    os.kill(pid, sign)
            time.sleep(locks.POLL_SECONDS)
    raise SetupError(_still_there(place, "does not stop"))


def postmaster_pid(place: Place) -> int | None:
    """The server's process id, from its pid file if that process really is the server of this place."""
    try:
        pid = int((place.data / "postmaster.pid").read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None
    return pid if _serves(pid, place.data) else None


def _serves(pid: int, data: Path) -> bool:
    if Path("/proc/self/cmdline").exists():
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return Path(os.fsdecode(arguments[0])).name == "postgres" and os.fsencode(data) in arguments
    command = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
    return f"postgres -D {data} " in subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _connect(place: Place) -> "Connection | None":
    password = roles.read_passwords(place.passwords)[roles.SUPERUSER]
    try:
        return roles.connect(place.socket_folder, password)
    except psycopg2.OperationalError as error:
        if "authentication failed" in str(error):
            raise SetupError(
                f"The passwords in {place.passwords} are not those of the database beside it. Restore that file from "
                f"a backup; or, to start with an empty database, move {place.folder} away."
            ) from error
        return None


def _url(place: Place, database: str, role: str, password: str) -> str:
    return URL.create(
        "postgresql+psycopg2",
        username=role,
        password=password,
        database=database,
        query={"host": str(place.socket_folder)},
    ).render_as_string(hide_password=False)


def _still_there(place: Place, what: str) -> str:
    pid = postmaster_pid(place)
    who = f"process {pid}" if pid else "processes of an earlier server, or of another container,"
    return (
        f"PostgreSQL in {place.folder} {what}: {who} hold {place.server_lock}. See {place.log}; end them, then retry."
    )
