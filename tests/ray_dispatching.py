"""`python -m tests.ray_dispatching`: a dispatcher on a Ray cluster, until SIGTERM.

Its workers are the real ones on an engine without a model; with a `step_seconds` of 0 they have one.
"""

import json
import logging
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import Any

from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.executors.ray.cluster import Cluster
from hpo_service.executors.ray.config import RayWorkers
from hpo_service.executors.ray.executor import RayExecutor
from hpo_service.executors.ray.start import connected_executor
from hpo_service.storage.database import make_engine, session_factory
from tests.ray_cluster import RESOURCE, ROOT
from trainer.common.failpoints import VARIABLE


@dataclass(frozen=True, kw_only=True)
class RayDispatcher:
    """What such a process is told. The actors of its first worker meet `actor_failpoints`."""

    url: str
    address: str
    folder: str
    step_seconds: float
    actor_failpoints: str = ""
    orphan_seconds: int = 60

    def __call__(self) -> None:
        """Lead until SIGTERM."""
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        folder, stop = Path(self.folder), Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        config = workers(folder, self.step_seconds, self.orphan_seconds)
        executor = self._with_failpoints(config) if self.actor_failpoints else None
        executor = executor or connected_executor(self.address, config, stop)
        engine = make_engine(self.url, application_name="hpo-dispatcher")
        Dispatcher(session_factory(engine), executor, snapshots=folder / "snapshots", must_see_store=True).run(stop)

    def _with_failpoints(self, config: RayWorkers) -> RayExecutor:
        cluster = FirstActorsFail(self.address, self.actor_failpoints)
        cluster.connect()
        return RayExecutor(config, cluster)


class FirstActorsFail(Cluster):
    """Actors of workers that replace others meet no failpoint, else a slice would find one at every attempt."""

    def __init__(self, address: str, failpoints: str) -> None:
        super().__init__(address, RESOURCE)
        self._failpoints = failpoints

    def actor_options(self) -> dict[str, Any]:
        """With an environment of their own, the first time."""
        failpoints, self._failpoints = self._failpoints, ""
        own = {"runtime_env": {"env_vars": {VARIABLE: failpoints}}} if failpoints else {}
        return super().actor_options() | own


class DispatcherProcess:
    """One such process, which meets `failpoints` itself; its log is in the folder."""

    def __init__(self, told: RayDispatcher, failpoints: str = "") -> None:
        folder = Path(told.folder)
        self.log = folder / f"dispatcher-{len(list(folder.glob('dispatcher-*')))}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.ray_dispatching", json.dumps(asdict(told))],
                cwd=ROOT,
                env={**os.environ, VARIABLE: failpoints},
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """End it now."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask it to end; its exit status."""
        self.process.terminate()
        return self.process.wait(60)


def workers(folder: Path, step_seconds: float, orphan_seconds: int = 60) -> RayWorkers:
    """What the tests' workers are started with."""
    without_model = ("-m", "tests.chaos.worker", str(step_seconds), "0")
    return RayWorkers(
        snapshots=folder / "snapshots",
        threads=1,
        resource=RESOURCE,
        orphan_seconds=orphan_seconds,
        command=without_model if step_seconds else ("-m", "trainer.worker"),
    )


if __name__ == "__main__":
    RayDispatcher(**json.loads(sys.argv[1]))()
