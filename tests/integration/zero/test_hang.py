"""A rank that does nothing any more: the group ends as a unit, and its slice can be tried again."""

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from hpo_service.core.settings import Settings
from hpo_service.core.study_rules import Cause
from hpo_service.dispatcher import local_workers
from hpo_service.dispatcher.workers.progress_timeouts import Liveness, Patience, Standstill
from hpo_service.executors.base import ExecutorEvent, SliceProgress, Wanted, WorkerGone
from hpo_service.executors.local import LocalExecutor, LocalWorkers
from tests.slices import ended, submit, wait_for, wait_ready
from trainer.spec import Outcome, Slice, TrialSpec

MakeSpec = Callable[..., TrialSpec]
RANK_TIMEOUT_SECONDS = 10.0


def test_a_stopped_rank_ends_its_group_and_the_slice_is_tried_again(make_spec: MakeSpec, tmp_path: Path) -> None:
    executor = LocalExecutor(
        LocalWorkers(
            snapshots=tmp_path / "snapshots",
            tokens=tmp_path / "tokens",
            logs=tmp_path / "logs",
            count=2,
            threads=1,
            rank_timeout_seconds=RANK_TIMEOUT_SECONDS,
        )
    )
    executor.demand([Wanted(ranks=2)])
    try:
        wait_ready(executor, 1)
        spec = make_spec(ranks=2, epochs=200.0)
        first = Slice(slice_id=1, attempt=1, trial=spec, until_examples=7000, snapshot_dir="1/2/7000/1")
        submit(executor, first)
        until_it_trains(executor)
        (pid,) = executor.pids().values()
        ranks = [psutil.Process(pid), *psutil.Process(pid).children()]
        assert len(ranks) == 2
        ranks[1].send_signal(signal.SIGSTOP)
        stopped_at = time.monotonic()
        seen = wait_for(executor, lambda seen: any(isinstance(event, WorkerGone) for event in seen))
        # Rank 0 waits so long for an answer, and as long again for another rank to have ended.
        assert time.monotonic() - stopped_at < 3 * RANK_TIMEOUT_SECONDS
        (lost,) = ended(seen)
        assert lost.outcome is Outcome.INFRA_ERROR
        assert not psutil.wait_procs(ranks, timeout=5)[1]

        wait_ready(executor, 1)
        again = first.model_copy(update={"attempt": 2, "until_examples": 16, "snapshot_dir": "1/2/16/1"})
        submit(executor, again)
        (done,) = ended(wait_for(executor, lambda seen: bool(ended(seen))))
        assert (done.outcome, done.examples_seen) == (Outcome.DONE, 16), done.message
        stop_the_first_rank(executor, first.model_copy(update={"attempt": 3, "snapshot_dir": "1/2/7000/3"}))
    finally:
        executor.close()


def stop_the_first_rank(executor: LocalExecutor, work: Slice) -> None:
    """The rank that talks says nothing any more, so nobody else can: the dispatcher misses its signs of life."""
    liveness = Liveness(Patience(floor_seconds=5.0))
    worker = submit(executor, work)
    until_it_trains(executor)
    (pid,) = executor.pids().values()
    ranks = [psutil.Process(pid), *psutil.Process(pid).children()]
    ranks[0].send_signal(signal.SIGSTOP)
    found: list[Standstill] = []
    while not found:
        liveness.hear(poll(executor))
        found = liveness.look({worker: [work.token]}, ())
    assert worker in found[0].reason
    executor.kill(worker, found[0].reason, Cause.NO_PROGRESS)
    seen = wait_for(executor, lambda seen: any(isinstance(event, WorkerGone) for event in seen))
    (gone,) = [event for event in seen if isinstance(event, WorkerGone)]
    assert (gone.cause, gone.reason) == (Cause.NO_PROGRESS, found[0].reason)
    assert not psutil.wait_procs(ranks, timeout=5)[1]


def until_it_trains(executor: LocalExecutor) -> None:
    while not any(isinstance(event, SliceProgress) and event.progress.phase == "training" for event in poll(executor)):
        pass


def poll(executor: LocalExecutor) -> Sequence[ExecutorEvent]:
    return executor.poll(0.1)


def test_the_setting_reaches_the_workers(tmp_path: Path) -> None:
    config = local_workers(Settings(home=tmp_path, rank_timeout_seconds=42.0))
    assert config.command_line(2)[-2:] == ["--rank-timeout-seconds", "42.0"]
    assert "--rank-timeout-seconds" not in config.command_line(1)
