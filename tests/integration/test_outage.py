"""A database that is away for longer than any lease: nothing expires, and what workers did meanwhile is not lost."""

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import select, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.study_rules import TERMINAL
from hpo_service.local.postgres import EmbeddedPostgres
from hpo_service.local.postgres.place import find_place
from hpo_service.local.postgres.server import postmaster_pid
from hpo_service.storage.database import make_engine, prepare, session_factory
from hpo_service.storage.queries.leases import LEASE_SECONDS
from hpo_service.storage.tables import Attempt
from tests.chaos.parts import ChaosDispatcher, rung_loss
from tests.chaos.processes import fork
from tests.chaos.proxy import Proxy
from tests.dispatching import state_of
from tests.integration.test_crash_matrix import post
from tests.invariants import broken, wrong_losses

Sessions = sessionmaker[Session]
_AWAY_SECONDS = LEASE_SECONDS + 5
_SECONDS = 60.0


def test_an_outage_longer_than_the_lease_loses_nothing(postgres_folder: Path, tmp_path: Path) -> None:
    """A slice takes a second, so both workers end one while nobody can write it down."""
    server = EmbeddedPostgres(postgres_folder / "home", fsync=False, fallback=postgres_folder / "fallback")
    server.start()
    prepare(server.url())
    sessions = session_factory(make_engine(server.url(), application_name="test", pool_size=0))
    study_id = post(sessions, budget={"max_trials": 4, "max_parallel": 2})
    (tmp_path / "logs").mkdir()
    run = ChaosDispatcher(url=server.url(), folder=str(tmp_path), workers=2, step_seconds=0.4)
    dispatchers = [fork(f"dispatcher {n}", run, tmp_path / "logs" / f"dispatcher-{n}.log", {}) for n in range(2)]
    try:
        _wait(lambda: _running(sessions) == 2, "two slices to run")
        place = find_place(server.home)
        assert place is not None
        pid = postmaster_pid(place)
        assert pid is not None
        os.kill(pid, signal.SIGQUIT)
        time.sleep(_AWAY_SECONDS)
        server.start()
        _wait(lambda: state_of(sessions, study_id) in TERMINAL, "the end of the study")
        with sessions() as session:
            assert session.scalars(text("SELECT epoch FROM hpo.leases")).one() == 1
            attempts = session.execute(select(Attempt.attempt, Attempt.outcome)).all()
            assert {tuple(attempt) for attempt in attempts} <= {(1, "done"), (1, "diverged")}
            assert wrong_losses(session, rung_loss) == []
        with sessions() as session:
            assert broken(session, settled=True) == []
        assert [dispatcher.status() for dispatcher in dispatchers] == [None, None]
    finally:
        for dispatcher in dispatchers:
            dispatcher.kill()


def _running(sessions: Sessions) -> int:
    with sessions() as session:
        return len(session.scalars(select(Attempt).where(Attempt.outcome.is_(None))).all())


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {_SECONDS:g} s for {what}"
        time.sleep(0.1)


def test_a_network_that_swallows_packets_does_not_block_for_long(postgres: EmbeddedPostgres, database_url: str) -> None:
    """The kernel is told when to give up; only a connection by TCP has such a limit."""
    place = find_place(postgres.home)
    assert place is not None
    proxy = Proxy(str(place.socket_folder / ".s.PGSQL.5432"), 1)
    process = fork("proxy", proxy.process(), Path("/dev/null"), {})
    url = make_url(database_url).set(host="127.0.0.1", port=proxy.ports[0], query={})
    engine = make_engine(url.render_as_string(hide_password=False), application_name="test", pool_size=0)
    try:
        with engine.connect() as connection:
            descriptor = connection.connection.dbapi_connection.fileno()  # type: ignore[union-attr]
            with socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM) as seen:
                limit_milliseconds = seen.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert 0 < limit_milliseconds <= 20_000
    finally:
        process.kill()
