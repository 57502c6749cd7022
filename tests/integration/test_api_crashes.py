"""kill -9 of an API between a request and its answer: whoever asks again is answered, and one thing has happened."""

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.messages import IntentKind
from hpo_service.storage.tables import Intent, Study
from tests import serving
from tests.chaos.parts import serve
from tests.chaos.processes import Forked, fork
from tests.invariants import broken
from trainer.common.failpoints import VARIABLE

Sessions = sessionmaker[Session]
_SECONDS = 30.0


class Apis:
    """One API after the other at the same address."""

    def __init__(self, url: str, root: Path, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self._run = serve(serving.settings(root, port=port, database_url=SecretStr(url)))
        self._log = log
        self._started: list[Forked] = []

    def start(self, failpoint: str = "") -> Forked:
        """One that ends at the failpoint."""
        process = fork("api", self._run, self._log, {VARIABLE: failpoint})
        self._started.append(process)
        deadline = time.monotonic() + _SECONDS
        while not self._answers():
            assert process.status() is None
            assert time.monotonic() < deadline
        return process

    def kill(self) -> None:
        """End them all."""
        for process in self._started:
            process.kill()

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.address}/healthz", trust_env=False).is_success
        except httpx.TransportError:
            time.sleep(0.05)
            return False


@pytest.fixture
def apis(database_url: str, root: Path, tmp_path: Path) -> Iterator[Apis]:
    apis = Apis(database_url, root, tmp_path / "api.log")
    yield apis
    apis.kill()


@pytest.fixture
def http(apis: Apis, sessions: Sessions) -> Iterator[httpx.Client]:
    """A client with a key."""
    headers = serving.bearer(serving.make_key(sessions))
    with httpx.Client(base_url=apis.address, headers=headers, timeout=_SECONDS, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("failpoint", ["create.before_commit", "create.after_commit"])
def test_a_study_that_is_posted_again_exists_once(
    apis: Apis, http: httpx.Client, sessions: Sessions, failpoint: str
) -> None:
    dying = apis.start(failpoint)
    headers = {"Idempotency-Key": "once"}
    with pytest.raises(httpx.TransportError):
        http.post("/v1/studies", json=serving.spec(), headers=headers)
    assert dying.wait(_SECONDS) == -signal.SIGKILL
    apis.start()
    answers = [http.post("/v1/studies", json=serving.spec(), headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    with sessions() as session:
        assert session.scalars(select(func.count()).select_from(Study)).one() == 1
    with sessions() as session:
        assert broken(session) == []


@pytest.mark.parametrize(("failpoint", "again"), [("steer.before_commit", 202), ("steer.after_commit", 409)])
def test_a_pause_that_is_asked_for_again_happens_once(
    apis: Apis, http: httpx.Client, sessions: Sessions, failpoint: str, again: int
) -> None:
    dying = apis.start(failpoint)
    assert http.post("/v1/studies", json=serving.spec()).status_code == 201
    with pytest.raises(httpx.TransportError):
        http.post("/v1/studies/first:pause")
    assert dying.wait(_SECONDS) == -signal.SIGKILL
    apis.start()
    assert http.post("/v1/studies/first:pause").status_code == again
    with sessions() as session:
        pauses = select(func.count()).select_from(Intent).where(Intent.kind == str(IntentKind.PAUSE))
        assert session.scalars(pauses).one() == 1
