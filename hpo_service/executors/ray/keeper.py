"""The thread for everything of the cluster that may block: making and ending actors, looking at its devices."""

import logging
import queue
import threading
import time
from collections.abc import Callable

from hpo_service.executors.ray.cluster import Cluster, Survey

log = logging.getLogger(__name__)

_SURVEY_SECONDS = 1.0

Task = Callable[[], None]


class Keeper:
    """Runs tasks in the order given and surveys the cluster between them. A task that fails is logged, no more."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._tasks: queue.Queue[Task | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="ray-keeper", daemon=True)
        #: the newest, None before the first
        self.survey: Survey | None = None
        self.surveyed_at = 0.0
        self._answered_at = time.monotonic()
        self._silent = False

    @property
    def silent_seconds(self) -> float:
        """For how long the cluster has not answered."""
        return time.monotonic() - self._answered_at

    def start(self) -> None:
        """Begin."""
        self._answered_at = time.monotonic()
        self._thread.start()

    def do(self, task: Task) -> None:
        """Run the task soon."""
        self._tasks.put(task)

    def close(self, timeout_seconds: float) -> None:
        """Finish what was given and end; a cluster that does not answer is not waited for longer than that."""
        if self._thread.is_alive():
            self._tasks.put(None)
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while True:
            self._look()
            try:
                task = self._tasks.get(timeout=_SURVEY_SECONDS)
                while task is not None:
                    self._guarded(task)
                    task = self._tasks.get_nowait()
                return
            except queue.Empty:
                continue

    def _look(self) -> None:
        try:
            self.survey = self._cluster.survey()
        except Exception as error:
            if not self._silent:
                log.warning("the cluster does not answer: %s", error)
            self._silent = True
            return
        self.surveyed_at = self._answered_at = time.monotonic()
        self._silent = False

    def _guarded(self, task: Task) -> None:
        try:
            task()
        except Exception:
            log.exception("the cluster did not do what it was asked for")
