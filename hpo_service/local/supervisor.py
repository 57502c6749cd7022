"""`hpo up`: one command that runs PostgreSQL, the API and the dispatcher, and keeps them running."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Self

import httpx
import psycopg2
from pydantic import SecretStr

from hpo_service.core.child_process import Child
from hpo_service.core.errors import SetupError
from hpo_service.core.pricing import load_prices
from hpo_service.core.settings import Settings
from hpo_service.integrations.switches import has_sinks, require_usable
from hpo_service.local.home import Home, require_free_port
from hpo_service.local.local_admin import Credentials
from hpo_service.local.mlflow_server import DATABASE as MLFLOW_DATABASE
from hpo_service.local.mlflow_server import MlflowServer, require_startable
from hpo_service.local.postgres import DASHBOARD, EmbeddedPostgres
from hpo_service.storage.database import optuna_url, prepare, read_only

Say = Callable[[str], None]

_TICK_SECONDS = 0.2
_DATABASE_CHECK_SECONDS = 2.0
_READY_SECONDS = 60.0
_DISPATCHER_STOP_SECONDS = 60.0
_API_STOP_SECONDS = 10.0
_OPTIONAL_STOP_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Started:
    """What the user needs to know of a running service."""

    url: str
    login_link: str
    new_key: bool
    mlflow_url: str | None


class Supervisor:
    """Owns one HPO_HOME while it is entered: starts everything, restarts what dies, stops everything in order.

    `with_mlflow` brings MLflow's server along.
    """

    def __init__(self, settings: Settings, say: Say, *, with_mlflow: bool = False) -> None:
        self._settings = settings
        self._say = say
        self._with_mlflow = with_mlflow
        self._home = Home(settings.home_path())
        self._stack = ExitStack()
        self._postgres: EmbeddedPostgres | None = None
        self._children: dict[str, Child] = {}
        self._optional: dict[str, Child] = {}  #: no study depends on them
        self._database_checked = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def start(self) -> Started:
        """Start everything; returns when the API answers.

        Raises:
            SetupError: the port, the folder or the database cannot be used; nothing is left running.
        """
        load_prices(self._settings)
        self._settings.snapshot_store()
        if not self._home.root.exists():
            require_free_port(self._settings.host, self._settings.port)
        lock = self._stack.enter_context(self._home.locked())
        require_free_port(self._settings.host, self._settings.port)
        mlflow = self._prepared_mlflow()
        settings = self._start_database()
        url = service_url(settings.host, settings.port)
        with Credentials(database_url(settings)) as credentials:
            new_key = credentials.ensure_admin_key(self._home)
            if mlflow is not None:
                settings = self._add_mlflow(mlflow, settings, lock)
            self._start_children(settings, lock)
            mlflow_url = None if mlflow is None else mlflow.url
            self._home.announce(url, settings.port, mlflow=mlflow_url)
            self._wait_ready(url)
            link = credentials.login_link(self._home.key() or "", url)
        return Started(url=url, login_link=link, new_key=new_key, mlflow_url=mlflow_url)

    def check(self) -> None:
        """One look at everything: start again what has died. Raises SetupError if it cannot be kept running."""
        now = time.monotonic()
        if self._postgres and now - self._database_checked >= _DATABASE_CHECK_SECONDS:
            self._database_checked = now
            if not self._database_answers(self._postgres):
                self._say("PostgreSQL does not answer; starting it again.")
                self._postgres.start()
        for child in self._children.values():
            child.check(self._say)
        self._check_optional()

    def run_until(self, stop: threading.Event) -> None:
        """Keep everything running until `stop` is set."""
        while not stop.wait(_TICK_SECONDS):
            self.check()

    def _database_answers(self, postgres: EmbeddedPostgres) -> bool:
        try:
            return postgres.running()
        except psycopg2.Error:
            return False

    def _start_database(self) -> Settings:
        if self._settings.database_url is not None:
            prepare(database_url(self._settings))
            return self._settings
        self._postgres = EmbeddedPostgres(self._home.root)
        self._stack.callback(self._postgres.stop)
        self._postgres.start()
        prepare(self._postgres.url())
        return self._settings.model_copy(
            update={
                "database_url": SecretStr(self._postgres.url()),
                "dashboard_database_url": SecretStr(self._postgres.url(role=DASHBOARD)),
            }
        )

    def _prepared_mlflow(self) -> MlflowServer | None:
        if not self._with_mlflow:
            return None
        require_startable(self._settings)
        self._say("MLflow's server: looking for its environment, which is made once; that takes some minutes.")
        return MlflowServer.prepared(self._settings)

    def _add_mlflow(self, server: MlflowServer, settings: Settings, lock: int) -> Settings:
        """What studies are to be told to from now on."""
        assert self._postgres is not None
        environment = server.environment(self._postgres.own_database(MLFLOW_DATABASE))
        log = self._home.logs / "mlflow.log"
        self._optional["mlflow"] = Child("MLflow server", server.command(), environment, log, lock, whole_group=True)
        return settings.model_copy(update={"mlflow_tracking_uri": SecretStr(server.url)})

    def _start_children(self, settings: Settings, lock: int) -> None:
        environment = child_environment(settings)
        for name, command in (("api", "serve"), ("dispatcher", "dispatch")):
            arguments = [sys.executable, "-m", "hpo_service.cli", command, "--supervised"]
            self._children[name] = Child(name, arguments, environment, self._home.logs / f"{name}.log", lock)
        if self._can_tell(settings):
            outbox = [sys.executable, "-m", "hpo_service.cli", "outbox", "--supervised"]
            self._optional["outbox"] = Child("outbox", outbox, environment, self._home.logs / "outbox.log", lock)
        self._stack.callback(self._stop_children)
        for child in self._running():
            child.start()

    def _running(self) -> list[Child]:
        return [*self._children.values(), *self._optional.values()]

    def _can_tell(self, settings: Settings) -> bool:
        try:
            require_usable(settings)
        except SetupError as error:
            self._say(f"{error.detail} Studies run without.")
            return False
        return has_sinks(settings)

    def _check_optional(self) -> None:
        """Nothing else ends where one of them cannot run."""
        for name, child in list(self._optional.items()):
            try:
                child.check(self._say)
            except SetupError as error:
                self._say(f"{error.detail}\nStudies go on; what they are to tell waits for the next start.")
                del self._optional[name]

    def _stop_children(self) -> None:
        for child in self._running():
            child.ask_to_stop()
        self._children["dispatcher"].wait_stopped(_DISPATCHER_STOP_SECONDS)
        self._children["api"].wait_stopped(_API_STOP_SECONDS)
        for child in self._optional.values():
            child.wait_stopped(_OPTIONAL_STOP_SECONDS)

    def _wait_ready(self, url: str) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        with httpx.Client(trust_env=False, timeout=2.0) as http:
            while time.monotonic() < deadline:
                self.check()
                try:
                    if http.get(f"{url}/healthz").is_success:
                        return
                except httpx.TransportError:
                    pass
                time.sleep(0.1)
        raise SetupError(
            f"The API did not answer within {_READY_SECONDS:.0f} s. "
            f"The end of its log:\n{self._children['api'].log_tail()}"
        )


def database_url(settings: Settings) -> str:
    """The service's database: HPO_DATABASE_URL, else the embedded server of HPO_HOME, which must have been started."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    return EmbeddedPostgres(settings.home_path()).url()


def reading_url(settings: Settings) -> str:
    """Optuna's tables for who may see all projects and change nothing, as a URL for `optuna.load_study`.

    Its role may only read (HPO_DASHBOARD_DATABASE_URL, or that of the embedded server). Where an own database has no
    such role, it is the service's, in transactions that refuse to write.
    """
    if settings.dashboard_database_url is not None:
        return optuna_url(settings.dashboard_database_url.get_secret_value())
    if settings.database_url is not None:
        return read_only(optuna_url(settings.database_url.get_secret_value()))
    return optuna_url(EmbeddedPostgres(settings.home_path()).url(role=DASHBOARD))


def service_url(host: str, port: int) -> str:
    """Where a browser on this machine finds a service that listens on `host`."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def child_environment(settings: Settings) -> Mapping[str, str]:
    """The environment that gives a child these settings."""
    environment = dict(os.environ) | {
        "HPO_HOME": str(settings.home_path()),
        "HPO_HOST": settings.host,
        "HPO_PORT": str(settings.port),
        "HPO_ROOTS": ":".join(str(root) for root in settings.allowed_roots()),
        "PYTHONUNBUFFERED": "1",
    }
    for name, secret in (
        ("HPO_DATABASE_URL", settings.database_url),
        ("HPO_DASHBOARD_DATABASE_URL", settings.dashboard_database_url),
        ("MLFLOW_TRACKING_URI", settings.mlflow_tracking_uri),
    ):
        if secret is not None:
            environment[name] = secret.get_secret_value()
    return environment


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and Ctrl-C set."""
    stop = threading.Event()

    def handle(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    return stop
