"""Seconds from a kill to the slice running again: the real executors, the real worker on examples/tiny-llama.

Nothing waits in reserve: the slice goes on in a fresh worker, so its start (imports, base model) is part of the figure.
It goes on from its last checkpoint; "running again" is the first sign of life of its next attempt. The database is left
out: it adds a commit or two.

`python -m benchmarks.recovery [--times N]` prints one JSON object as its last line, medians of N:

- `local_s`: SIGKILL of a worker of the `local` executor;
- `ray_actor_s`: SIGKILL of the actor beside a worker of the `ray` executor, which takes the worker with it;
- `ray_node_s`: SIGKILL of the raylet of the worker's node; the fresh one is on another node. Much of it passes until
  the cluster gives a node up, which is set to at most 15 s of silence here, and most often takes 6 s.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from statistics import median

import psutil

from hpo_service.executors.base import (
    Executor,
    ExecutorEvent,
    SliceEnded,
    SliceProgress,
    Wanted,
    WorkerGone,
    WorkerReady,
)
from hpo_service.executors.local import LocalExecutor, LocalWorkers
from tests.ray_cluster import RESOURCE, RayCluster, environment
from tests.slices import long_slice
from trainer.spec import Slice, SnapshotRef

_PATIENCE_SECONDS = 300.0
_CHECKPOINT_STEPS = 3

Kill = Callable[[WorkerReady], None]


class Watch:
    """Hears an executor and keeps its warm workers."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.ready: dict[str, WorkerReady] = {}

    def until(self, condition: Callable[[ExecutorEvent], bool]) -> ExecutorEvent:
        """The first event of which it holds."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            for event in self.executor.poll(0.05):
                if isinstance(event, WorkerReady):
                    self.ready[event.worker] = event
                elif isinstance(event, WorkerGone):
                    self.ready.pop(event.worker, None)
                if condition(event):
                    return event
        raise TimeoutError(f"the {self.executor.name} executor did not do it within {_PATIENCE_SECONDS:g} s")

    def run(self, work: Slice) -> WorkerReady:
        """Hand the slice to a worker, as soon as there is one; where it is."""
        self.executor.demand([Wanted()])
        while (worker := self.executor.choose(work, prefetch=False)) is None:
            self.until(lambda event: isinstance(event, WorkerReady))
        self.executor.submit(work, worker)
        return self.ready[worker]

    def progress(self, work: Slice, *, checkpoint: bool = False) -> SnapshotRef | None:
        """Wait for a sign of life of the attempt; the checkpoint that it is to speak of."""

        def wanted(event: ExecutorEvent) -> bool:
            if not isinstance(event, SliceProgress):
                return False
            said = event.progress
            return (said.slice_id, said.attempt) == work.token and (said.checkpoint is not None) >= checkpoint

        event = self.until(wanted)
        assert isinstance(event, SliceProgress)
        return event.progress.checkpoint


def recovery_seconds(watch: Watch, kill: Kill) -> float:
    """From the kill of what a slice is on to the first sign of life of its next attempt."""
    work = long_slice()
    often = work.trial.training.model_copy(update={"checkpoint_every_steps": _CHECKPOINT_STEPS})
    work = work.model_copy(update={"trial": work.trial.model_copy(update={"training": often})})
    home = watch.run(work)
    checkpoint = watch.progress(work, checkpoint=True)
    began = time.monotonic()
    kill(home)
    watch.until(lambda event: isinstance(event, WorkerGone) and event.worker == home.worker)
    folder = f"{work.snapshot_dir}/again"
    again = work.model_copy(update={"attempt": 2, "snapshot_dir": folder, "snapshots": (checkpoint,)})
    watch.run(again)
    watch.progress(again)
    seconds = time.monotonic() - began
    watch.executor.stop(again.token)
    watch.until(lambda event: isinstance(event, SliceEnded))
    return seconds


def local_seconds(folder: Path, times: int) -> list[float]:
    """Of the local executor."""
    config = LocalWorkers(
        snapshots=folder / "snapshots", tokens=folder / "tokens", logs=folder / "logs", count=1, threads=1
    )
    executor = LocalExecutor(config)
    executor.start()
    try:
        watch = Watch(executor)
        return [recovery_seconds(watch, _kill_worker) for _ in range(times)]
    finally:
        executor.close()


def ray_seconds(folder: Path, times: int) -> tuple[list[float], list[float]]:
    """Of the Ray executor: after the death of an actor, after the death of a node."""
    os.environ.update(environment())
    cluster = RayCluster(folder / "cluster", [1, 1])
    try:
        # Imported late: Ray reads its token when it is imported.
        library = import_module("hpo_service.executors.ray.cluster").Cluster(cluster.address, RESOURCE)
        library.connect()
        config = import_module("hpo_service.executors.ray.config").RayWorkers(
            snapshots=folder / "snapshots", threads=1, resource=RESOURCE
        )
        executor: Executor = import_module("hpo_service.executors.ray.executor").RayExecutor(config, library)
        executor.start()
        watch = Watch(executor)
        actors = [recovery_seconds(watch, _kill_actor) for _ in range(times)]
        nodes = []
        for _ in range(times):
            nodes.append(recovery_seconds(watch, lambda home: cluster.nodes[home.node].signal_raylet(signal.SIGKILL)))
            cluster.add_node(1)
        executor.close()
        return actors, nodes
    finally:
        cluster.close()


def _kill_worker(home: WorkerReady) -> None:
    os.kill(home.ready.pid, signal.SIGKILL)


def _kill_actor(home: WorkerReady) -> None:
    parent = psutil.Process(home.ready.pid).parent()
    assert parent is not None
    parent.kill()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3, help="kills of each kind")
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory(prefix="recovery-") as name:
        local = local_seconds(Path(name) / "local", times)
        print(f"local: {local}", file=sys.stderr)
        actors, nodes = ray_seconds(Path(name) / "ray", times)
        print(f"ray actors: {actors}, nodes: {nodes}", file=sys.stderr)
    medians = {"local_s": median(local), "ray_actor_s": median(actors), "ray_node_s": median(nodes)}
    print(json.dumps({key: round(seconds, 2) for key, seconds in medians.items()} | {"times": times}))


if __name__ == "__main__":
    main()
