"""A whole service under test: PostgreSQL behind a proxy, two APIs, two dispatchers with four workers, two users."""

import os
import random
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
from pydantic import SecretStr
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from hpo_service.api.http.auth import create_key
from hpo_service.core.settings import Settings
from hpo_service.local.postgres import EmbeddedPostgres
from hpo_service.local.postgres.place import find_place
from hpo_service.local.postgres.server import postmaster_pid
from hpo_service.storage.database import make_engine, optuna_url, session_factory
from hpo_service.storage.tables import DEFAULT_PROJECT_ID
from tests.chaos.client import OVER, client
from tests.chaos.faults import Kind
from tests.chaos.parts import FAKETIME, ChaosDispatcher, serve
from tests.chaos.processes import Forked, fork
from tests.chaos.proxy import Mode, Proxy
from tests.consistency.in_process import hpo
from tests.consistency.place import Place

ROOT = Path(__file__).parents[2]
WORKERS = 4
_HALVES = 2
_USERS = 3
End = Callable[[], None]
"""What makes a fault end."""
_RESTART_SECONDS = 0.3
_STOP_SECONDS = 40.0
_START_SECONDS = 240.0


class Stack:
    """Owns all processes but the server's. What dies is started again, as a supervisor would."""

    def __init__(self, folder: Path, server: EmbeddedPostgres, database: str, *, seed: int, tiny_llama: bool) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.logs.mkdir(parents=True)
        self.damaged: dict[str, str] = {}
        self._server = server
        self._tables = optuna_url(server.url(database))
        self._seed = seed
        self._tiny_llama = tiny_llama
        self._users = 1 if tiny_llama else _USERS
        self.engine: Engine = make_engine(server.url(database), application_name="harness", pool_size=0)
        self.sessions = session_factory(self.engine)
        with self.sessions.begin() as session:
            self.key = create_key(session, DEFAULT_PROJECT_ID, "chaos")
        place = find_place(server.home)
        assert place is not None
        self._place = place
        self._proxy = Proxy(str(place.socket_folder / ".s.PGSQL.5432"), _HALVES)
        plain = make_url(server.url(database))
        self._urls = [
            plain.set(host="127.0.0.1", port=port, query={}).render_as_string(hide_password=False)
            for port in self._proxy.ports
        ]
        self.password = str(plain.password)
        self._ports = [_free_port() for _ in range(_HALVES)]
        self._starts: dict[str, Callable[[], None]] = {}
        self._environments: dict[str, Mapping[str, str]] = {}
        self._due: dict[str, float] = {}
        self.processes: dict[str, Forked] = {}

    def start(self) -> None:
        """Start everything; returns when slices run, however slow the machine is."""
        self.processes["proxy"] = fork("proxy", self._proxy.process(), self.logs / "proxy.log", {})
        for half, (url, port) in enumerate(zip(self._urls, self._ports, strict=True)):
            settings = Settings(home=self.folder, port=port, roots=(ROOT,), database_url=SecretStr(url))
            self._starts[f"api-{half}"] = serve(settings)
            self._starts[f"dispatcher-{half}"] = ChaosDispatcher(
                url=url,
                folder=str(self.folder),
                workers=WORKERS,
                step_seconds=None if self._tiny_llama else 0.35,
                repeats=self._seed,
                skew_seconds=600 if FAKETIME and self._seed % 2 else 0,
            )
        for name in self._starts:
            self._begin(name)
        urls = [f"http://127.0.0.1:{port}" for port in self._ports]
        for number in range(self._users):
            user = client(urls, self.key, self.folder, 1000 * self._seed + number)
            self.processes[f"user-{number}"] = fork(f"user-{number}", user, self.logs / f"user-{number}.log", {})
        self._wait_for_work()

    def _wait_for_work(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            with self.sessions() as session:
                if session.execute(text("SELECT count(*) FROM hpo.attempts")).scalar_one() > 0:
                    return
            self.tick()
            time.sleep(_RESTART_SECONDS)
        raise TimeoutError(f"no slice ran after {_START_SECONDS:g} s; see {self.logs}")

    def rest(self) -> None:
        """Users begin nothing more."""
        (self.folder / OVER).touch()

    def tick(self) -> None:
        """Start again what has died."""
        now = time.monotonic()
        for name in self._starts:
            if name in self._due:
                if self._due[name] <= now:
                    del self._due[name]
                    self._begin(name)
            elif self.processes[name].status() is not None:
                self._due[name] = now + _RESTART_SECONDS

    def place(self) -> Place:
        """Where the service is looked at once the faults are over."""
        url = f"http://127.0.0.1:{self._ports[0]}"
        return Place(
            url=url,
            key=self.key,
            tables=self._tables,
            snapshots=self.folder / "snapshots",
            hpo=partial(hpo, url, self.key),
            dashboard=False,
            trains=self._tiny_llama,
            disturbed=True,
        )

    def users(self) -> list[Forked]:
        """Processes of the users."""
        return [self.processes[f"user-{number}"] for number in range(self._users)]

    def users_work(self) -> bool:
        """Whether a user has not finished."""
        return any(user.status() is None for user in self.users())

    def begin(self, kind: Kind, pick: float) -> End:
        """Let it happen; what makes it end. Where there is no victim nothing happens."""
        beginnings: dict[Kind, Callable[[], End]] = {
            Kind.KILL_WORKER: lambda: _kill(self._worker(pick)),
            Kind.STOP_WORKER: lambda: _stop(self._worker(pick)),
            Kind.KILL_LEADER: lambda: _kill(self._pid(self._leader())),
            Kind.KILL_STANDBY: lambda: _kill(self._pid(self._standby())),
            Kind.STOP_LEADER: lambda: _stop(self._pid(self._leader())),
            Kind.RESTART_LEADER: lambda: _send(self._pid(self._leader()), signal.SIGTERM),
            Kind.SKEW_LEADER: lambda: self._skew(self._leader(), 900 if pick < 0.5 else -900),
            Kind.KILL_API: lambda: _kill(self._pid(f"api-{int(pick * _HALVES)}")),
            Kind.STOP_API: lambda: _stop(self._pid(f"api-{int(pick * _HALVES)}")),
            Kind.RESTART_DATABASE: self._stop_database,
            Kind.DROP_CONNECTIONS: self._drop_connections,
            Kind.HOLD_ROUTE: lambda: self._divert(int(pick * _HALVES), "hold"),
            Kind.DROP_REPLIES: lambda: self._divert(int(pick * _HALVES), "drop_replies"),
            Kind.CUT_ROUTE: lambda: self._divert(int(pick * _HALVES), "cut"),
            Kind.FILL_DISK: self._fill_disk,
            Kind.DAMAGE_SNAPSHOT: lambda: self._damage(pick),
        }
        return beginnings[kind]()

    def workers(self) -> list[psutil.Process]:
        """Living worker processes, by pid."""
        found = []
        for half in range(_HALVES):
            with suppress(psutil.NoSuchProcess):
                found += psutil.Process(self.processes[f"dispatcher-{half}"].pid).children()
        return sorted(found, key=lambda process: process.pid)

    def stop(self) -> list[str]:
        """End all politely; what did not end as it should."""
        wrong = []
        for name in self._starts:
            self.processes[name].send(signal.SIGTERM)
        for name in self._starts:
            try:
                status = self.processes[name].wait(_STOP_SECONDS)
            except AssertionError as error:
                wrong.append(f"I14: {error}")
            else:
                wrong += (
                    []
                    if status in (0, -signal.SIGTERM)
                    else [f"I14: {name} ended with {status} when it was asked to stop"]
                )
        return wrong

    def kill(self) -> None:
        """End all that is left."""
        for process in self.processes.values():
            process.kill()
        for orphan in left_over(self.folder):
            with suppress(psutil.NoSuchProcess):
                orphan.kill()
        self.engine.dispose()

    def _begin(self, name: str) -> None:
        environment = self._environments.pop(name, {})
        run = self._starts[name]
        if environment and isinstance(run, ChaosDispatcher):
            run = run.skewed
        self.processes[name] = fork(name, run, self.logs / f"{name}.log", environment)

    def _pid(self, name: str) -> int | None:
        return self.processes[name].pid if self.processes[name].status() is None else None

    def _leader(self) -> str:
        """The dispatcher that holds the lease; the first while nobody can say."""
        with suppress(DBAPIError), self.sessions() as session:
            holder = session.execute(text("SELECT holder FROM hpo.leases")).scalar_one_or_none() or ""
            for name in ("dispatcher-0", "dispatcher-1"):
                if f":{self.processes[name].pid}:" in holder:
                    return name
        return "dispatcher-0"

    def _standby(self) -> str:
        return "dispatcher-1" if self._leader() == "dispatcher-0" else "dispatcher-0"

    def _worker(self, pick: float) -> int | None:
        workers = self.workers()
        return workers[int(pick * len(workers))].pid if workers else None

    def _skew(self, name: str, seconds: int) -> End:
        self.processes[name].kill()
        self._environments[name] = {"FAKETIME": f"{seconds:+d}s"}
        return _nothing

    def _stop_database(self) -> End:
        pid = postmaster_pid(self._place)
        if pid is not None:
            os.kill(pid, signal.SIGQUIT)
        return self._server.start

    def _drop_connections(self) -> End:
        """The server's clients are the service and this harness."""
        query = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'hpo' AND pid <> pg_backend_pid()"
        )
        with suppress(DBAPIError), self.sessions.begin() as session:
            session.execute(text(query))
        return _nothing

    def _divert(self, route: int, mode: Mode) -> End:
        self._proxy.become(route, mode)
        return lambda: self._proxy.become(route, "cut")

    def _fill_disk(self) -> End:
        self._limit_files(1000)
        return lambda: self._limit_files(resource.RLIM_INFINITY)

    def _limit_files(self, most_bytes: int) -> None:
        for worker in self.workers():
            with suppress(ProcessLookupError):
                resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))

    def _damage(self, pick: float) -> End:
        """The newest snapshot that is in place loses something."""
        manifests = [path for path in (self.folder / "snapshots").rglob("manifest.json") if ".partial" not in str(path)]
        with suppress(OSError, ValueError):
            newest = max(manifests, key=lambda path: path.stat().st_mtime).parent
            file = sorted(newest.iterdir())[int(pick * len(list(newest.iterdir())))]
            content = file.read_bytes()
            if pick < 0.3:
                file.unlink()
            elif pick < 0.6:
                file.write_bytes(content[: len(content) // 2])
            else:
                file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
            self.damaged[newest.relative_to(self.folder / "snapshots").as_posix()] = file.name
        return _nothing


def left_over(folder: Path) -> list[psutil.Process]:
    """Processes that name the folder in their command line, beside the server's and this one."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "pid"])
        if str(folder) in " ".join(process.info["cmdline"] or []) and process.pid != os.getpid()
        if "postgres" not in process.info["cmdline"][0] and sys.argv[0] not in process.info["cmdline"]
    ]


def _kill(pid: int | None) -> End:
    return _send(pid, signal.SIGKILL)


def _stop(pid: int | None) -> End:
    """Until the end of the fault."""
    _send(pid, signal.SIGSTOP)

    def go_on() -> None:
        _send(pid, signal.SIGCONT)

    return go_on


def _send(pid: int | None, sign: signal.Signals) -> End:
    with suppress(ProcessLookupError):
        if pid is not None:
            os.kill(pid, sign)
    return _nothing


def _nothing() -> None:
    """Nothing has to end."""


def _free_port() -> int:
    """Below those that the system gives to clients, so that it stays free while an API is down."""
    while True:
        port = random.randint(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
