"""`python -m tests.ray_dispatching URL ADDRESS FOLDER STEP_SECONDS`: a dispatcher on a Ray cluster, until SIGTERM.

Its workers are the real ones on an engine without a model; with STEP_SECONDS 0 they have one.
"""

import logging
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event

from hpo_service.database import make_engine, session_factory
from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.executors.ray.config import RayWorkers
from hpo_service.executors.ray.starting import connected_executor
from tests.ray_cluster import RESOURCE, ROOT


class DispatcherProcess:
    """One such process; its log is in the folder."""

    def __init__(self, url: str, address: str, folder: Path, step_seconds: float) -> None:
        self.log = folder / f"dispatcher-{len(list(folder.glob('dispatcher-*')))}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.ray_dispatching", url, address, str(folder), str(step_seconds)],
                cwd=ROOT,
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


def workers(folder: Path, step_seconds: float) -> RayWorkers:
    """What the tests' workers are started with."""
    without_model = ("-m", "tests.chaos.worker", str(step_seconds), "0")
    return RayWorkers(
        snapshots=folder / "snapshots",
        threads=1,
        resource=RESOURCE,
        orphan_seconds=60,
        command=without_model if step_seconds else ("-m", "trainer.worker"),
    )


def main(url: str, address: str, folder: Path, step_seconds: float) -> None:
    """Lead until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    executor = connected_executor(address, workers(folder, step_seconds), stop)
    engine = make_engine(url, application_name="hpo-dispatcher")
    Dispatcher(session_factory(engine), executor, snapshots=folder / "snapshots", must_see_store=True).run(stop)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), float(sys.argv[4]))
