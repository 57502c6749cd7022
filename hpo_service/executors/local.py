"""Workers as child processes of the dispatcher on this machine. They die with it: their commands come on a pipe."""

import logging
import queue
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpo_service.executors.base import ExecutorEvent, SliceEnded, WorkerGone, WorkerReady
from hpo_service.executors.worker_process import WorkerProcess
from trainer.spec import Outcome, Slice, SliceResult

log = logging.getLogger(__name__)

_FIRST_RESTART_SECONDS = 0.5
_LONGEST_RESTART_SECONDS = 30.0
_HEALTHY_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class LocalWorkers:
    """What the local workers are started with. `threads` per worker; `slots` slices are ticked in turn by each."""

    snapshots: Path
    logs: Path
    count: int
    threads: int
    slots: int = 1
    resident: int = 8
    command: tuple[str, ...] = (sys.executable, "-m", "trainer.worker")

    def command_line(self) -> list[str]:
        """The worker's argv."""
        return [
            *self.command,
            *("--snapshots", str(self.snapshots)),
            *("--threads", str(self.threads)),
            *("--resident", str(self.resident)),
        ]


class LocalExecutor:
    """The `local` executor. One slice beyond `slots` may be queued here, so that a worker never waits for a commit."""

    name = "local"

    def __init__(self, config: LocalWorkers) -> None:
        self._config = config
        self._events: queue.SimpleQueue[ExecutorEvent | None] = queue.SimpleQueue()
        self._workers: dict[str, WorkerProcess] = {}
        self._last_worker: dict[str, str] = {}
        self._restart_at: dict[int, float] = {}
        self._deaths: dict[int, int] = {}
        self._generation = 0
        self._closed = False

    def start(self) -> None:
        for index in range(self._config.count):
            self._spawn(index)

    def free_slots(self, prefetch: bool) -> int:
        return sum(max(0, self._capacity(prefetch) - worker.load) for worker in self._ready())

    def choose(self, work: Slice, prefetch: bool) -> str | None:
        free = [worker for worker in self._ready() if worker.load < self._capacity(prefetch)]
        if not free:
            return None
        home = self._last_worker.get(_trial_of(work))
        return min(free, key=lambda worker: (worker.load, worker.name != home)).name

    def submit(self, work: Slice, worker: str) -> None:
        self._last_worker[_trial_of(work)] = worker
        process = self._workers.get(worker)
        if process is not None:
            process.submit(work)

    def stop_slice(self, token: tuple[int, int]) -> None:
        for worker in self._workers.values():
            queued = worker.stop(token)
            if queued is not None:
                self._events.put(SliceEnded(worker=worker.name, result=_never_started(queued)))

    def poll(self, timeout_seconds: float) -> Sequence[ExecutorEvent]:
        self._restart_dead()
        events: list[ExecutorEvent] = []
        try:
            item = self._events.get(timeout=timeout_seconds)
            while True:
                if item is not None:
                    events.append(item)
                item = self._events.get_nowait()
        except queue.Empty:
            pass
        for event in events:
            self._observe(event)
        return events

    def wake(self) -> None:
        self._events.put(None)

    def close(self) -> None:
        self._closed = True
        for worker in self._workers.values():
            worker.hang_up()
        for worker in self._workers.values():
            worker.join()

    def pids(self) -> dict[str, int]:
        """Process ids of the living workers by name."""
        return {worker.name: worker.pid for worker in self._workers.values()}

    def _observe(self, event: ExecutorEvent) -> None:
        if isinstance(event, WorkerGone):
            worker = self._workers.pop(event.worker)
            lived_seconds = time.monotonic() - worker.started_at
            deaths = 1 if lived_seconds > _HEALTHY_SECONDS else self._deaths.get(worker.index, 0) + 1
            delay = min(_FIRST_RESTART_SECONDS * 2 ** (deaths - 1), _LONGEST_RESTART_SECONDS)
            self._deaths[worker.index] = deaths
            self._restart_at[worker.index] = time.monotonic() + delay
            self._last_worker = {trial: name for trial, name in self._last_worker.items() if name != event.worker}
        elif isinstance(event, WorkerReady):
            self._workers[event.worker].ready = True

    def _restart_dead(self) -> None:
        due = [index for index, at in self._restart_at.items() if at <= time.monotonic()]
        for index in due:
            del self._restart_at[index]
            if not self._closed:
                self._spawn(index)

    def _spawn(self, index: int) -> None:
        name = f"local-{index}.{self._generation}"
        self._generation += 1
        self._workers[name] = WorkerProcess.start(
            name=name,
            index=index,
            command=self._config.command_line(),
            slots=self._config.slots,
            log_path=self._config.logs / f"worker-{index}.log",
            deliver=self._events.put,
        )

    def _ready(self) -> list[WorkerProcess]:
        return [worker for worker in self._workers.values() if worker.ready]

    def _capacity(self, prefetch: bool) -> int:
        return self._config.slots + int(prefetch)


def _trial_of(work: Slice) -> str:
    return "/".join(work.snapshot_dir.split("/")[:2])


def _never_started(work: Slice) -> SliceResult:
    seen = work.snapshots[0].examples_seen if work.snapshots else 0
    return SliceResult(
        slice_id=work.slice_id,
        attempt=work.attempt,
        outcome=Outcome.PREEMPTED,
        examples_seen=seen,
        resumed_from_examples=seen,
        message="stopped before it began",
    )
