"""kill -9 at every failpoint: whoever starts next goes on, and no invariant is broken."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.messages import IntentKind
from hpo_service.core.study_rules import TERMINAL
from hpo_service.services.data import checks
from hpo_service.services.data.checks import Check
from hpo_service.storage.tables import DEFAULT_PROJECT_ID, Intent, Study
from tests.chaos.parts import SPEC, ChaosDispatcher, resolved, rung_loss
from tests.chaos.processes import Forked, fork
from tests.dispatching import ask, expire_lease, optuna_trials, state_of
from tests.invariants import bad_snapshots, broken, wrong_losses
from trainer.common.failpoints import FAILPOINTS, VARIABLE, Commit, RayFailpoint
from trainer.spec import CheckData

Sessions = sessionmaker[Session]
Start = Callable[..., Forked]
_SECONDS = 30.0
_OF_THE_API = (Commit.CREATE, Commit.STEER)
#: tests/full/ray/test_crash_matrix.py has them
_OF_A_CLUSTER = tuple(RayFailpoint)
#: failpoints that a process passes often: at which of the times it is killed, beside the first
_LATER = {
    "settle.before_commit": 5,
    "settle.after_commit": 4,
    "submit.after": 4,
    "message.before_delivery": 6,
    "snapshot.before_rename": 4,
    "result.before_send": 3,
}
_CASES = [
    *(name for name in FAILPOINTS if not name.startswith(_OF_THE_API) and name not in _OF_A_CLUSTER),
    *(f"{name}:{nth}" for name, nth in _LATER.items()),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Logs and snapshots."""
    (tmp_path / "logs").mkdir()
    return tmp_path


@pytest.fixture
def start(database_url: str, folder: Path) -> Iterator[Start]:
    """Starts dispatchers; `start("name:nth")` one that ends there."""
    started: list[Forked] = []

    def begin(failpoints: str = "", step_seconds: float = 0.002) -> Forked:
        number = len(started)
        log, environment = folder / "logs" / f"dispatcher-{number}.log", {VARIABLE: failpoints}
        run = ChaosDispatcher(url=database_url, folder=str(folder), step_seconds=step_seconds)
        started.append(fork(f"dispatcher {number}", run, log, environment))
        return started[-1]

    yield begin
    for process in started:
        process.kill()


def post(sessions: Sessions, *, checked: bool = False, **changes: Any) -> int:
    """A queued study, as the API writes it."""
    spec = SPEC | changes
    facts = resolved(spec)
    with sessions.begin() as session:
        study = Study(
            project_id=DEFAULT_PROJECT_ID,
            name=spec["metadata"]["name"],
            spec=spec,
            resolved=facts.model_dump(mode="json"),
            state="queued",
        )
        session.add(study)
        session.flush()
        if checked:
            check = Check(task=CheckData(model="/m", data=facts.data), fingerprint="f" * 64)
            study.check_job_id = checks.ask(session, DEFAULT_PROJECT_ID, check, study.id).job
        session.add(Intent(project_id=DEFAULT_PROJECT_ID, study_id=study.id, kind="create"))
        return study.id


def wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {_SECONDS:g} s for {what}"
        time.sleep(0.02)


def ended(sessions: Sessions, study_id: int) -> bool:
    return state_of(sessions, study_id) in TERMINAL


def succeed(sessions: Sessions, start: Start, dead: Forked) -> None:
    """The next dispatcher, without waiting for the lease of the one that was killed."""
    assert dead.wait(_SECONDS) == -signal.SIGKILL
    expire_lease(sessions)
    start()


def require_whole(sessions: Sessions, folder: Path) -> None:
    """Every invariant holds, now that all is done."""
    with sessions() as session:
        assert broken(session, settled=True) == []
    with sessions() as session:
        assert wrong_losses(session, rung_loss) == []
        assert bad_snapshots(session, folder / "snapshots", {}) == []


@pytest.mark.parametrize("failpoint", _CASES)
def test_a_kill_anywhere_breaks_nothing(sessions: Sessions, folder: Path, start: Start, failpoint: str) -> None:
    name = failpoint.partition(":")[0]
    study_id = post(sessions, checked=name.startswith(Commit.JOB))
    if name.startswith((Commit.TAKE_OVER, Commit.CATCH_UP)):
        leave_a_running_slice(sessions, start, study_id)
    # A second attempt needs a worker that dies first.
    process = start(f"result.before_send,{failpoint}" if name.startswith(Commit.RETRY) else failpoint)
    if name.startswith(Commit.RELEASE):
        wait(lambda: state_of(sessions, study_id) == "running", "the study to run")
        process.send(signal.SIGTERM)
    wait(lambda: process.status() is not None or ended(sessions, study_id), "a death or the end")
    logs = "".join(log.read_text() for log in (folder / "logs").iterdir())
    assert f"failpoint {name}: kill" in logs
    if process.status() is not None:
        succeed(sessions, start, process)
    wait(lambda: ended(sessions, study_id), "the end of the study")
    require_whole(sessions, folder)


def leave_a_running_slice(sessions: Sessions, start: Start, study_id: int) -> None:
    """Of a study that is stopping, by a dispatcher that was killed."""
    first = start(step_seconds=0.2)
    wait(lambda: state_of(sessions, study_id) == "running", "the study to run")
    ask(sessions, study_id, IntentKind.STOP)
    wait(lambda: state_of(sessions, study_id) == "stopping", "the study to stop")
    first.kill()
    expire_lease(sessions)


def test_a_study_that_was_killed_everywhere_ends_like_an_undisturbed_one(
    sessions: Sessions, folder: Path, start: Start, database_url: str
) -> None:
    post(sessions)
    first = start()
    wait(lambda: ended(sessions, 1), "the end of the first study")
    first.kill()
    second = post(sessions, metadata={"name": "t"})
    for place in ("accept.after_commit", "settle.before_commit", "settle.after_commit:2", "message.before_delivery:3"):
        expire_lease(sessions)
        assert start(place).wait(_SECONDS) == -signal.SIGKILL
    expire_lease(sessions)
    start()
    wait(lambda: ended(sessions, second), "the end of the second study")
    facts = [
        [(trial.number, trial.state, trial.params, trial.value, trial.intermediate_values) for trial in trials]
        for trials in (optuna_trials(database_url), optuna_trials(database_url, "t"))
    ]
    assert facts[0] == facts[1]
    require_whole(sessions, folder)
