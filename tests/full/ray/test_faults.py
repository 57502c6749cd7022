"""A study on three Ray nodes while nodes, dispatchers and the head die: nothing but running slices is lost.

The losses of the engine without a model are known beforehand to the last bit, and are checked at the end of every test.
"""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.study_rules import Cause
from hpo_service.storage.tables import Attempt, Slice, Worker
from tests.dispatching import expire_lease, state_of
from tests.integration.test_crash_matrix import post, require_whole
from tests.ray_cluster import RayCluster, RayNode
from tests.ray_dispatching import DispatcherProcess, RayDispatcher

pytestmark = pytest.mark.timeout(900)
Sessions = sessionmaker[Session]
Start = Callable[..., DispatcherProcess]
_SECONDS = 240.0
_STEP_SECONDS = 0.5


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    started = RayCluster(tmp_path_factory.mktemp("cluster"), [1, 1])
    yield started
    started.close()


@pytest.fixture
def start(database_url: str, tmp_path: Path, cluster: RayCluster) -> Iterator[Start]:
    started: list[DispatcherProcess] = []

    def begin(step_seconds: float = _STEP_SECONDS) -> DispatcherProcess:
        told = RayDispatcher(url=database_url, address=cluster.address, folder=str(tmp_path), step_seconds=step_seconds)
        started.append(DispatcherProcess(told))
        return started[-1]

    yield begin
    for process in started:
        process.kill()


def post_study(sessions: Sessions, trials: int = 6) -> int:
    return post(sessions, budget={"max_trials": trials, "max_parallel": 2})


def wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {_SECONDS:g} s for {what}"
        time.sleep(0.1)


def done(sessions: Sessions) -> int:
    with sessions() as session:
        return len(session.scalars(select(Slice.id).where(Slice.state == "done")).all())


def causes(sessions: Sessions) -> list[str]:
    """Why attempts were lost, one for each."""
    with sessions() as session:
        return [cause for cause in session.scalars(select(Attempt.cause)) if cause]


def busy_nodes(sessions: Sessions) -> set[str]:
    with sessions() as session:
        query = select(Worker.node).join(Attempt, Attempt.worker_id == Worker.id).where(Attempt.outcome.is_(None))
        return set(session.scalars(query))


def trainers(node: RayNode) -> list[psutil.Process]:
    """Worker processes of that node."""
    found = []
    for process in psutil.process_iter():
        try:
            if "--snapshots" in process.cmdline() and process.environ().get("HOME") == str(node.home):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def require_end(sessions: Sessions, study_id: int, folder: Path) -> None:
    wait(lambda: state_of(sessions, study_id) == "completed", "the end of the study")
    require_whole(sessions, folder)


def test_workers_and_what_they_do_outlive_their_dispatcher(sessions: Sessions, start: Start, tmp_path: Path) -> None:
    study_id = post_study(sessions)
    dispatcher = start()
    wait(lambda: done(sessions) >= 2 and len(busy_nodes(sessions)) == 2, "slices on two nodes")
    dispatcher.kill()
    # What ends meanwhile waits with its worker.
    time.sleep(4 * _STEP_SECONDS)
    expire_lease(sessions)
    second = start()
    wait(lambda: done(sessions) >= 6, "more slices")
    assert second.stop() == 0
    start()
    require_end(sessions, study_id, tmp_path)
    assert causes(sessions) == []


def test_a_node_that_dies_costs_its_running_slices(
    sessions: Sessions, start: Start, cluster: RayCluster, tmp_path: Path
) -> None:
    study_id = post_study(sessions)
    start()
    wait(lambda: done(sessions) >= 2 and len(busy_nodes(sessions)) == 2, "slices on two nodes")
    name = next(node for node in busy_nodes(sessions))
    cluster.nodes[name].signal_raylet(signal.SIGKILL)
    wait(lambda: bool(causes(sessions)), "a lost attempt")
    wait(lambda: trainers(cluster.nodes[name]) == [], "the workers of the dead node to end")
    cluster.nodes[name].kill()
    fresh = cluster.add_node(1)
    wait(lambda: fresh.name in busy_nodes(sessions) or state_of(sessions, study_id) == "completed", "a fresh worker")
    require_end(sessions, study_id, tmp_path)
    assert causes(sessions) == [Cause.NODE_LOST]


def test_a_node_that_hangs_does_not_count_and_its_worker_stops(
    sessions: Sessions, start: Start, cluster: RayCluster, tmp_path: Path
) -> None:
    """Its worker talks to the dispatcher until it is given up, so slices take longer here than that."""
    study_id = post_study(sessions, trials=3)
    start(step_seconds=4.0)
    wait(lambda: len(busy_nodes(sessions)) == 2, "slices on two nodes")
    name = next(node for node in busy_nodes(sessions))
    cluster.nodes[name].signal_raylet(signal.SIGSTOP)
    wait(lambda: bool(causes(sessions)), "a lost attempt")
    wait(lambda: trainers(cluster.nodes[name]) == [], "the workers of the node that was given up to end")
    cluster.nodes[name].signal_raylet(signal.SIGCONT)
    require_end(sessions, study_id, tmp_path)
    cluster.nodes[name].kill()
    cluster.add_node(1)
    assert causes(sessions) == [Cause.NODE_LOST]


def test_another_head_takes_the_study_on(sessions: Sessions, start: Start, cluster: RayCluster, tmp_path: Path) -> None:
    """Without external Redis the cluster is gone with its head; the dispatcher ends, and waits when started again."""
    study_id = post_study(sessions)
    dispatcher = start()
    wait(lambda: done(sessions) >= 2, "slices")
    for node in cluster.nodes.values():
        if node.process.poll() is None and node.parts("gcs_server"):
            node.kill()
    wait(lambda: dispatcher.process.poll() is not None, "the dispatcher to end")
    second = start()
    time.sleep(3)
    assert second.process.poll() is None
    for node in cluster.nodes.values():
        node.kill()
    cluster.start_head()
    cluster.add_node(1)
    cluster.add_node(1)
    require_end(sessions, study_id, tmp_path)
    assert set(causes(sessions)) <= {Cause.NODE_LOST, Cause.DISPATCHER_LOST, Cause.WORKER_DIED}
