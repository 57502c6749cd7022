"""Workers as child processes of the dispatcher on this machine. They die with it: their commands come on a pipe.

Each has one device, or several and as many ranks (a worker group). Which there are follows what studies demand.
"""

import logging
import queue
import socket
import sys
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from hpo_service.core.study_rules import Cause
from hpo_service.executors.base import ExecutorEvent, SliceEnded, Token, Wanted, Work, WorkerGone, WorkerReady
from hpo_service.executors.layout import group_sizes
from hpo_service.executors.worker_process import WorkerProcess, never_started
from trainer.snapshots.stores.location import credential_prefixes
from trainer.spec import Job, Slice

log = logging.getLogger(__name__)

_FIRST_RESTART_SECONDS = 0.5
_LONGEST_RESTART_SECONDS = 30.0
_HEALTHY_SECONDS = 60.0
#: so long a worker that was told to end has for it
_GOODBYE_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class LocalWorkers:
    """What the local workers are started with: `count` devices are shared out between them, and
    tokenized data are kept in `tokens` for all. `snapshots` is a folder or the URL of an object store.

    `threads` are per device; a worker of one device ticks `slots` slices in turn. One rank of a group waits for another
    for `rank_timeout_seconds` at most. `gpus` are the devices' names where they are GPUs, see `visible_gpus`.
    """

    snapshots: str | Path
    tokens: Path
    logs: Path
    count: int
    threads: int
    slots: int = 1
    resident: int = 8
    rank_timeout_seconds: float = 600.0
    gpus: tuple[str, ...] | None = None
    command: tuple[str, ...] = (sys.executable, "-m", "trainer.worker")

    def command_line(self, ranks: int) -> list[str]:
        """The argv of a worker of so many ranks."""
        group = ("--ranks", str(ranks), "--rank-timeout-seconds", str(self.rank_timeout_seconds))
        return [
            *self.command,
            *("--snapshots", str(self.snapshots)),
            *("--token-cache", str(self.tokens)),
            *("--threads", str(self.threads)),
            *("--resident", str(self.resident)),
            *(group if ranks > 1 else ()),
        ]


class LocalExecutor:
    """The `local` executor. One slice beyond `slots` may be queued here, so that a worker never waits for a commit."""

    name = "local"
    lasting = False
    devices_setting = "HPO_WORKERS"

    def __init__(self, config: LocalWorkers) -> None:
        self._config = config
        self._events: queue.Queue[ExecutorEvent | None] = queue.Queue()
        self._workers: dict[str, WorkerProcess] = {}
        self._last_worker: dict[str, str] = {}
        self._restart_at: dict[tuple[int, ...], float] = {}
        self._deaths: dict[tuple[int, ...], int] = {}
        self._excluded: set[int] = set()
        self._node = socket.gethostname()
        self._generation = 0
        self._closed = False

    def start(self) -> None:
        for device in self._devices():
            self._spawn((device,))

    def reattach(self) -> Mapping[str, Sequence[Token]]:
        return {}

    def taken(self, tokens: Collection[Token]) -> None:
        pass

    @property
    def largest_group(self) -> int:
        return self._config.count

    @property
    def devices_present(self) -> int | None:
        return self._config.count

    def demand(self, wanted: Sequence[Wanted]) -> None:
        if not wanted or self._closed:
            return
        surplus = Counter(map(len, self._taken()))
        missing = []
        for size in group_sizes([want.ranks for want in wanted], len(self._devices())):
            if surplus[size]:
                surplus[size] -= 1
            else:
                missing.append(size)
        self._retire(surplus if missing else Counter())
        taken = {device for devices in self._taken(dying=True) for device in devices}
        free = [device for device in self._devices() if device not in taken]
        for size in missing:
            if size <= len(free):
                self._spawn(tuple(free[:size]))
                del free[:size]

    def free_slots(self, prefetch: bool, ranks: int = 1, without: Collection[str] = ()) -> int:
        return sum(worker.room(prefetch) for worker in self._ready(ranks) if worker.name not in without)

    def choose(
        self,
        work: Work,
        prefetch: bool,
        planned: Mapping[str, int] = MappingProxyType({}),
        without: Collection[str] = (),
    ) -> str | None:
        if isinstance(work, Job):
            idle = (worker.name for worker in self._ready() if not worker.has_job)
            return next((name for name in idle if not (planned.get(name) or name in without)), None)
        suitable = [worker for worker in self._ready(work.trial.training.ranks) if worker.name not in without]
        loads = {worker.name: worker.load + planned.get(worker.name, 0) for worker in suitable}
        free = [
            worker
            for worker in suitable
            if (not loads[worker.name] if work.alone else worker.room(prefetch) > planned.get(worker.name, 0))
        ]
        if not free:
            return None
        home = self._last_worker.get(_trial_of(work))
        return min(free, key=lambda worker: (loads[worker.name], worker.name != home)).name

    def submit(self, work: Work, worker: str) -> None:
        if isinstance(work, Slice):
            self._last_worker[_trial_of(work)] = worker
        process = self._workers.get(worker)
        if process is not None:
            process.submit(work)

    def stop(self, token: tuple[int, int]) -> None:
        for worker in self._workers.values():
            queued = worker.stop(token)
            if queued is not None:
                self._events.put(SliceEnded(worker=worker.name, result=never_started(queued)))

    def kill(self, worker: str, reason: str, cause: Cause) -> None:
        process = self._workers.get(worker)
        if process is not None:
            process.kill(reason, cause)

    def drain(self, worker: str) -> None:
        process = self._workers.get(worker)
        if process is not None:
            process.draining = True

    def exclude(self, places: Sequence[str]) -> None:
        self._excluded |= self._devices_at(places)
        for worker in self._workers.values():
            worker.draining |= bool(self._excluded.intersection(worker.devices))
        for devices in [devices for devices in self._restart_at if self._excluded.intersection(devices)]:
            del self._restart_at[devices]
            self._start_where_free(devices)

    def include(self, places: Sequence[str]) -> None:
        again = self._devices_at(places) & self._excluded
        self._excluded -= again
        self._start_where_free(sorted(again))

    def poll(self, timeout_seconds: float) -> Sequence[ExecutorEvent]:
        self._end_drained()
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
            self._last_worker = {trial: name for trial, name in self._last_worker.items() if name != event.worker}
            if self._excluded.intersection(worker.devices):
                self._start_where_free(worker.devices)
            elif event.replaced:
                self._restart_at[worker.devices] = time.monotonic()
            elif not worker.hung_up:
                self._restart_later(worker)
        elif isinstance(event, WorkerReady):
            self._workers[event.worker].ready = True

    def _restart_later(self, worker: WorkerProcess) -> None:
        lived_seconds = time.monotonic() - worker.started_at
        deaths = 1 if lived_seconds > _HEALTHY_SECONDS else self._deaths.get(worker.devices, 0) + 1
        delay = min(_FIRST_RESTART_SECONDS * 2 ** (deaths - 1), _LONGEST_RESTART_SECONDS)
        self._deaths[worker.devices] = deaths
        self._restart_at[worker.devices] = time.monotonic() + delay

    def _restart_dead(self) -> None:
        due = [devices for devices, at in self._restart_at.items() if at <= time.monotonic()]
        for devices in due:
            del self._restart_at[devices]
            if not self._closed:
                self._spawn(devices)

    def _end_drained(self) -> None:
        for worker in self._workers.values():
            if worker.hung_up_at is not None:
                if time.monotonic() - worker.hung_up_at > _GOODBYE_SECONDS:
                    worker.kill(f"worker {worker.name} did not end when it was told to", Cause.WORKER_ENDED)
            elif worker.draining and worker.idle:
                worker.hang_up()

    def _devices(self) -> list[int]:
        """Devices that may have workers."""
        return [device for device in range(self._config.count) if device not in self._excluded]

    def _devices_at(self, places: Sequence[str]) -> set[int]:
        """Which of these places are devices here."""
        return {device for device in range(self._config.count) if f"{self._node}/{device}" in places}

    def _start_where_free(self, devices: Sequence[int]) -> None:
        """Let every device of these that may have a worker, and has none, get one of its own."""
        taken = {device for taken in self._taken(dying=True) for device in taken}
        for device in devices:
            if device not in self._excluded and device not in taken:
                self._restart_at[device,] = time.monotonic()

    def _taken(self, dying: bool = False) -> list[tuple[int, ...]]:
        """Devices of the workers that are there or will be again; with `dying`, also of those told to end."""
        living = [
            worker.devices
            for worker in self._workers.values()
            if dying or not (worker.hung_up or self._excluded.intersection(worker.devices))
        ]
        return [*living, *self._restart_at]

    def _retire(self, surplus: Counter[int]) -> None:
        """Let so many workers of each size go, idle ones at once; the others take nothing more until they are idle."""
        for devices in list(self._restart_at):
            if surplus[len(devices)] > 0:
                surplus[len(devices)] -= 1
                del self._restart_at[devices]
        for worker in sorted(self._workers.values(), key=lambda worker: (not worker.leaving, worker.load)):
            if worker.hung_up:
                continue
            size = len(worker.devices)
            worker.leaving = surplus[size] > 0
            surplus[size] -= worker.leaving
            if worker.leaving and worker.idle:
                worker.hang_up()

    def _spawn(self, devices: tuple[int, ...]) -> None:
        name = f"local-{devices[0]}.{self._generation}"
        self._generation += 1
        self._workers[name] = WorkerProcess.start(
            name=name,
            node=self._node,
            devices=devices,
            command=self._config.command_line(len(devices)),
            # The trials of a group share one adapter, so they do not take turns.
            slots=self._config.slots if len(devices) == 1 else 1,
            log_path=self._config.logs / f"worker-{devices[0]}.log",
            credentials=credential_prefixes(self._config.snapshots),
            gpus=self._config.gpus,
            deliver=self._events.put,
        )

    def _ready(self, ranks: int | None = None) -> list[WorkerProcess]:
        """Workers that take work, of any or of that number of ranks."""
        workers = self._workers.values()
        ready = [worker for worker in workers if worker.ready and not (worker.retiring or worker.leaving)]
        return [worker for worker in ready if not worker.draining and ranks in (None, len(worker.devices))]


def _trial_of(work: Slice) -> str:
    return "/".join(work.snapshot_dir.split("/")[:2])
