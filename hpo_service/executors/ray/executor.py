"""The `ray` executor: workers as detached actors of a cluster. They outlive the dispatcher; the next one finds them."""

import logging
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from hpo_service.domain import Cause
from hpo_service.errors import ClusterLost
from hpo_service.executors.base import (
    ExecutorEvent,
    JobEnded,
    SliceEnded,
    SliceProgress,
    Token,
    Wanted,
    Work,
    WorkerGone,
    WorkerReady,
)
from hpo_service.executors.layout import base_of
from hpo_service.executors.ray.actions import Actions
from hpo_service.executors.ray.cluster import Cluster, Host
from hpo_service.executors.ray.config import RayWorkers
from hpo_service.executors.ray.keeper import Keeper
from hpo_service.executors.ray.planning import Standing, plan
from hpo_service.executors.ray.reattaching import meet_workers
from hpo_service.executors.ray.remote_worker import RemoteWorker
from trainer.spec import Job, JobResult, Progress, Ready, Slice, SliceResult, WorkerMessage

log = logging.getLogger(__name__)

_ADJUST_SECONDS = 0.5
_FIRST_RESTART_SECONDS = 0.5
_LONGEST_RESTART_SECONDS = 30.0
_HEALTHY_SECONDS = 60.0
_CLOSE_SECONDS = 5.0
#: an actor that has not answered for so long has most likely got no device yet
_PENDING_SECONDS = 120.0
#: how old the cluster's account of its devices may be
_LAG_SECONDS = 1.0
#: Ray ends a process whose head has been gone for 60 seconds, in the middle of anything.
_LOST_SECONDS = 30.0
#: as many ranks as a spec may ask for: more devices may join a cluster at any time
_ANY_GROUP = 1024


class RayExecutor:
    """One slice beyond `slots` may wait beside a worker, so that it never waits for a commit.

    All state belongs to one thread, that of the dispatcher's loop; answers of the cluster are handed to it. Only `wake`
    may be called on others.
    """

    name = "ray"
    lasting = True

    def __init__(self, config: RayWorkers, cluster: Cluster) -> None:
        self._config = config
        self._cluster = cluster
        self._keeper = Keeper(cluster)
        self._dispatcher = secrets.token_hex(8)
        self._actions = Actions()
        self._events: list[ExecutorEvent] = []
        self._workers: dict[str, RemoteWorker] = {}
        self._parked: dict[str, RemoteWorker] = {}
        self._excluded: set[str] = set()
        self._wanted: Sequence[Wanted] = ()
        self._last_worker: dict[str, str] = {}
        self._deaths = 0
        self._start_at = 0.0
        self._adjusted_at = 0.0
        self._changed_at = 0.0

    def start(self) -> None:
        self._keeper.start()

    def reattach(self) -> Mapping[str, Sequence[Token]]:
        known = {name: worker for name, worker in self._workers.items() if worker.launch is not None}
        if not known:
            known = meet_workers(self._cluster, self._dispatcher, self, self._actions)
            self._workers |= known
        return {name: [*worker.slices, *worker.jobs] for name, worker in known.items()}

    def taken(self, tokens: Collection[Token]) -> None:
        for worker in self._workers.values():
            for token in worker.results.intersection(tokens):
                worker.take(token)

    @property
    def largest_group(self) -> int:
        return self._config.max_devices or _ANY_GROUP

    def demand(self, wanted: Sequence[Wanted]) -> None:
        self._wanted = tuple(wanted)

    def free_slots(self, prefetch: bool, ranks: int = 1) -> int:
        return sum(self._room(worker, prefetch) for worker in self._ready(ranks))

    def choose(self, work: Work, prefetch: bool, planned: Mapping[str, int] = MappingProxyType({})) -> str | None:
        if isinstance(work, Job):
            return next((worker.name for worker in self._ready() if not worker.jobs), None)
        suitable = self._ready(work.trial.training.ranks)
        loads = {worker.name: len(worker.slices) + planned.get(worker.name, 0) for worker in suitable}
        free = [
            worker
            for worker in suitable
            if (not loads[worker.name] if work.alone else self._room(worker, prefetch) > planned.get(worker.name, 0))
        ]
        return self._best(free, loads, work)

    def submit(self, work: Work, worker: str) -> None:
        if isinstance(work, Slice):
            self._last_worker[_trial_of(work)] = worker
        if worker in self._workers:
            self._workers[worker].submit(work)

    def stop(self, token: Token) -> None:
        for worker in self._workers.values():
            if token in worker.slices | worker.jobs:
                worker.stop(token)

    def kill(self, worker: str, reason: str, cause: Cause) -> None:
        if worker in self._workers:
            self._workers[worker].kill(reason, cause)

    def drain(self, worker: str) -> None:
        if worker in self._workers:
            self._workers[worker].draining = True

    def exclude(self, places: Sequence[str]) -> None:
        self._excluded |= set(places)
        for worker in self._workers.values():
            worker.draining |= bool(self._excluded.intersection(worker.places))

    def include(self, places: Sequence[str]) -> None:
        self._excluded -= set(places)
        for worker in [one for one in self._parked.values() if not self._excluded.intersection(one.places)]:
            del self._parked[worker.name]
            self._remove(worker)

    def poll(self, timeout_seconds: float) -> Sequence[ExecutorEvent]:
        deadline = time.monotonic() + timeout_seconds
        waiting = self._actions.work_off(0.0)
        self._adjust()
        while waiting and not self._events and (left := deadline - time.monotonic()) > 0:
            waiting = self._actions.work_off(min(left, _ADJUST_SECONDS))
            self._adjust()
        events, self._events = self._events, []
        return events

    def wake(self) -> None:
        self._actions.wake()

    def close(self) -> None:
        """Leave the workers to the next dispatcher."""
        self._keeper.close(_CLOSE_SECONDS)
        self._cluster.disconnect()

    def pids(self) -> dict[str, int]:
        """Process ids of the warm workers by name, each on its own node."""
        return {worker.name: worker.pid for worker in self._workers.values() if worker.ready}

    def met(self, worker: RemoteWorker) -> None:
        """Its hosts have devices: start its processes, unless no worker may be there."""
        self._changed_at = time.monotonic()
        if self._excluded.intersection(worker.places) and worker.launch is None:
            # The actors keep the devices from being given out again.
            self._workers.pop(worker.name, None)
            self._parked[worker.name] = worker
        elif worker.launch is None:
            worker.start(self._config.launches(worker.ranks, worker.leader))
        else:
            worker.draining = bool(self._excluded.intersection(worker.places))
            worker.listen()

    def said(self, worker: RemoteWorker, message: WorkerMessage) -> None:
        """Make an event of a worker's message."""
        match message:
            case Ready():
                worker.ready, worker.pid = True, message.pid
                ready = WorkerReady(worker=worker.name, ready=message, node=worker.node, places=worker.places)
                self._events.append(ready)
            case Progress():
                self._events.append(SliceProgress(worker=worker.name, progress=message))
            case SliceResult():
                worker.ended((message.slice_id, message.attempt))
                # It ends when all it runs has stopped; a fresh one takes its place.
                worker.retiring |= any(notice.kind == "memory_growth" for notice in message.notices)
                self._events.append(SliceEnded(worker=worker.name, result=message))
            case JobResult():
                worker.ended((message.job_id, message.attempt))
                self._events.append(JobEnded(worker=worker.name, result=message))

    def over(self, worker: RemoteWorker, reason: str, cause: Cause, *, replaced: bool) -> None:
        """A worker has ended: say so, clear up after it, and think of a fresh one."""
        if self._workers.pop(worker.name, None) is None:
            return
        self._last_worker = {trial: name for trial, name in self._last_worker.items() if name != worker.name}
        if worker.launch is not None:
            event = WorkerGone(worker=worker.name, reason=reason, replaced=replaced, cause=cause, places=worker.places)
            self._events.append(event)
        if self._excluded.intersection(worker.places):
            self._parked[worker.name] = worker
        else:
            self._remove(worker)
        if cause in (Cause.WORKER_DIED, Cause.INFRA_ERROR) and not replaced:
            self._wait_before_restart(time.monotonic() - worker.started_at)

    def _adjust(self) -> None:
        """Start the workers that are missing, let those go that are not needed."""
        if time.monotonic() - self._adjusted_at < _ADJUST_SECONDS or self._keeper.survey is None:
            return
        if self._keeper.silent_seconds > _LOST_SECONDS:
            raise ClusterLost(
                f"the Ray cluster has not answered for {_LOST_SECONDS:g} s: this dispatcher ends. Started again, it "
                "waits for the cluster; what ran there goes on from its last snapshots."
            )
        self._adjusted_at = now = time.monotonic()
        staying = [worker for worker in self._workers.values() if worker.let_go is None]
        for worker in staying:
            if worker.draining and worker.idle:
                worker.end(f"worker {worker.name} was drained")
        steps = plan(
            self._wanted,
            self._devices(now),
            [_standing(worker, now) for worker in staying if not worker.draining],
            slots=self._config.slots,
            keep_idle_seconds=self._config.idle_seconds,
        )
        for worker in staying:
            worker.leaving = worker.name in steps.let_go
            if worker.leaving:
                self._let_go(worker)
        for ranks in steps.start if self._may_start(now) else ():
            self._spawn(ranks)

    def _let_go(self, worker: RemoteWorker) -> None:
        """End it if it is idle; one that still waits for devices needs them no more."""
        if not worker.placed:
            worker.is_over = True
            del self._workers[worker.name]
            self._remove(worker)
        elif worker.idle:
            worker.end(f"worker {worker.name} is not wanted any more")

    def _devices(self, now: float) -> int:
        """How many devices our workers may have in all.

        What the cluster says of free devices is a little old, and of one that we wait for it is not known whether it
        is ours by now: it is taken to be for a while.
        """
        survey = self._keeper.survey
        assert survey is not None
        parked = sum(worker.ranks for worker in self._parked.values())
        if self._config.max_devices:
            return max(0, self._config.max_devices - parked)
        ours = [
            worker for worker in self._workers.values() if worker.placed or now - worker.started_at < _PENDING_SECONDS
        ]
        return max(0, min(survey.total - parked, survey.free + sum(worker.ranks for worker in ours)))

    def _may_start(self, now: float) -> bool:
        """Whether the cluster's account of its devices covers all that we did to them."""
        if now < self._start_at:
            return False
        settled = all(worker.placed for worker in self._workers.values())
        return bool(self._config.max_devices) or (
            settled and self._keeper.surveyed_at > self._changed_at + _LAG_SECONDS
        )

    def _spawn(self, ranks: int) -> None:
        name = f"ray-{secrets.token_hex(4)}"
        self._changed_at = time.monotonic()
        worker = self._workers[name] = RemoteWorker(name, ranks, self._dispatcher, self, self._actions)
        self._keeper.do(partial(self._create, worker))

    def _create(self, worker: RemoteWorker) -> None:
        """On the keeper's thread."""
        try:
            hosts = self._cluster.create(worker.name, worker.ranks, self._config.orphan_seconds)
        except Exception as error:
            reason = f"worker {worker.name} could not be made: {error}"
            log.exception("%s", reason)
            self._actions.post(partial(self.over, worker, reason, Cause.WORKER_DIED, replaced=False))
            return
        self._actions.post(partial(self._meet, worker, dict(enumerate(hosts))))

    def _meet(self, worker: RemoteWorker, hosts: dict[int, Host]) -> None:
        if not worker.is_over:
            worker.meet(hosts)

    def _remove(self, worker: RemoteWorker) -> None:
        self._keeper.do(partial(self._cluster.remove, worker.name))

    def _wait_before_restart(self, lived_seconds: float) -> None:
        self._deaths = 1 if lived_seconds > _HEALTHY_SECONDS else self._deaths + 1
        delay = min(_FIRST_RESTART_SECONDS * 2 ** (self._deaths - 1), _LONGEST_RESTART_SECONDS)
        self._start_at = time.monotonic() + delay

    def _ready(self, ranks: int | None = None) -> list[RemoteWorker]:
        """Workers that take work, of any or of that number of ranks."""
        ready = [worker for worker in self._workers.values() if worker.ready and worker.let_go is None]
        return [
            worker
            for worker in ready
            if not (worker.draining or worker.leaving or worker.retiring) and ranks in (None, worker.ranks)
        ]

    def _room(self, worker: RemoteWorker, prefetch: bool) -> int:
        slots = self._config.slots if worker.ranks == 1 else 1
        return 0 if worker.alone else max(0, slots + int(prefetch) - len(worker.slices))

    def _best(self, free: Sequence[RemoteWorker], loads: Mapping[str, int], work: Slice) -> str | None:
        """The least loaded: rather where the trial was, else where its base is, else where none is yet."""
        home = self._last_worker.get(_trial_of(work))
        base = base_of(work.trial.model, work.trial.training)
        chosen = min(
            free,
            key=lambda one: (loads[one.name], one.name != home, one.base != base, one.base != ""),
            default=None,
        )
        return None if chosen is None else chosen.name


def _standing(worker: RemoteWorker, now: float) -> Standing:
    idle = worker.ready and worker.idle
    return Standing(
        worker=worker.name,
        ranks=worker.ranks,
        placed=worker.placed,
        busy=not worker.idle,
        idle_seconds=now - worker.idle_since if idle else 0.0,
        base=worker.base,
    )


def _trial_of(work: Slice) -> str:
    return "/".join(work.snapshot_dir.split("/")[:2])
