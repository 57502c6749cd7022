"""An executor of each kind with two workers, and what tests do to it. The real ones run the real small model."""

import os
import signal
from pathlib import Path
from typing import Protocol

from hpo_service.executors.base import Executor
from hpo_service.executors.fake import FakeExecutor
from hpo_service.executors.local import LocalExecutor, LocalWorkers
from hpo_service.executors.ray.cluster import Cluster
from hpo_service.executors.ray.config import RayWorkers
from hpo_service.executors.ray.executor import RayExecutor
from tests.ray_cluster import RESOURCE, RayCluster


class Rig(Protocol):
    """An executor under test with what the tests need to do to it."""

    executor: Executor

    def kill(self, worker: str) -> None: ...

    def close(self) -> None: ...


class FakeRig:
    """Slices are held until the test lets them go, as a slice of the real worker takes its time."""

    def __init__(self) -> None:
        self.fake = FakeExecutor(lambda _: 2.0, workers=2)
        self.executor: Executor = self.fake

    def kill(self, worker: str) -> None:
        self.fake.kill(worker)

    def close(self) -> None:
        self.fake.close()


class LocalRig:
    """Two real workers."""

    def __init__(self, folder: Path) -> None:
        config = LocalWorkers(
            snapshots=folder / "snapshots", tokens=folder / "tokens", logs=folder / "logs", count=2, threads=1
        )
        self.local = LocalExecutor(config)
        self.executor: Executor = self.local

    def kill(self, worker: str) -> None:
        os.kill(self.local.pids()[worker], signal.SIGKILL)

    def close(self) -> None:
        self.local.close()


class RayRig:
    """Two real workers on two nodes of a real cluster."""

    def __init__(self, folder: Path) -> None:
        self.cluster = RayCluster(folder / "cluster", [1, 1])
        library = Cluster(self.cluster.address, RESOURCE)
        library.connect()
        config = RayWorkers(snapshots=folder / "snapshots", threads=1, resource=RESOURCE, max_devices=2)
        self.ray = RayExecutor(config, library)
        self.executor: Executor = self.ray

    def kill(self, worker: str) -> None:
        os.kill(self.ray.pids()[worker], signal.SIGKILL)

    def close(self) -> None:
        self.ray.close()
        self.cluster.close()
