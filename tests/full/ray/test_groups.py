"""A worker of two ranks on two Ray nodes, with the real engine: a killed rank takes the group, not the trial."""

import signal
from collections.abc import Callable, Iterator

import psutil
import pytest

from hpo_service.executors.base import Executor, ExecutorEvent, SliceProgress, Wanted, WorkerGone, WorkerReady
from hpo_service.executors.ray.cluster import Cluster
from hpo_service.executors.ray.executor import RayExecutor
from tests.ray_cluster import RESOURCE, RayCluster
from tests.ray_dispatching import workers
from tests.slices import a_slice, ended, submit, wait_for
from trainer.spec import Outcome, Slice, SnapshotRef

pytestmark = pytest.mark.timeout(900)
_PATIENCE = 4


@pytest.fixture(scope="module")
def executor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayExecutor]:
    cluster = RayCluster(tmp_path_factory.mktemp("cluster"), [1, 1])
    library = Cluster(cluster.address, RESOURCE)
    library.connect()
    started = RayExecutor(workers(tmp_path_factory.mktemp("work"), 0.0), library)
    started.start()
    started.demand([Wanted(ranks=2)])
    yield started
    started.close()
    cluster.close()


def until(executor: Executor, condition: Callable[[ExecutorEvent], bool]) -> list[ExecutorEvent]:
    """All events up to one of which it holds; groups take their time to start."""
    for _ in range(_PATIENCE):
        try:
            return wait_for(executor, lambda seen: any(condition(event) for event in seen))
        except AssertionError:
            continue
    raise AssertionError("it did not come")


def rank_process(rank: int) -> psutil.Process:
    (found,) = (
        process
        for process in psutil.process_iter(["cmdline"])
        if "trainer.worker" in (command := process.info["cmdline"] or []) and command[-2:] == ["--rank", str(rank)]
    )
    return found


def checkpoint_of(event: ExecutorEvent) -> SnapshotRef | None:
    return event.progress.checkpoint if isinstance(event, SliceProgress) else None


def is_ready(event: ExecutorEvent) -> bool:
    return isinstance(event, WorkerReady)


def is_done(event: ExecutorEvent) -> bool:
    return bool(ended([event]))


def test_a_killed_rank_ends_its_group_and_the_trial_goes_on_as_if_nothing_had_been(executor: RayExecutor) -> None:
    (ready,) = (event for event in until(executor, is_ready) if isinstance(event, WorkerReady))
    assert (ready.ready.ranks, len(ready.places)) == (2, 2)
    assert {*ready.node.split(", ")} == {"node1", "node2"}  # which of them has rank 0 is Ray's choice
    undisturbed = often_saved(a_slice(trial=1, until=640, epochs=10, ranks=2))
    submit(executor, undisturbed)
    (expected,) = ended(until(executor, is_done))
    assert expected.outcome is Outcome.DONE, expected.message

    work = often_saved(a_slice(trial=2, until=640, epochs=10, ranks=2))
    worker = submit(executor, work)
    seen = until(executor, lambda event: checkpoint_of(event) is not None)
    rank_process(1).send_signal(signal.SIGKILL)
    seen += until(executor, lambda event: isinstance(event, WorkerGone))
    (gone,) = (event for event in seen if isinstance(event, WorkerGone))
    assert gone.worker == worker
    assert "rank 1" in gone.reason
    assert all(result.outcome is Outcome.INFRA_ERROR for result in ended(seen))

    until(executor, is_ready)
    known = tuple(ref for event in reversed(seen) if (ref := checkpoint_of(event)) is not None)
    again = work.model_copy(update={"attempt": 2, "snapshot_dir": f"{work.snapshot_dir}/2", "snapshots": known})
    assert submit(executor, again) != worker
    (result,) = ended(until(executor, is_done))
    assert (result.outcome, result.resumed_from_examples > 0) == (Outcome.DONE, True), result.message
    assert result.eval_loss == expected.eval_loss


def often_saved(work: Slice) -> Slice:
    training = work.trial.training.model_copy(update={"checkpoint_every_steps": 5})
    return work.model_copy(update={"trial": work.trial.model_copy(update={"training": training})})
