"""The `ray` executor: workers as detached actors of a cluster. They outlive the dispatcher; the next one finds them."""

import logging
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from hpo_service.core.errors import ClusterLost
from hpo_service.core.study_rules import Cause
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
from hpo_service.executors.ray.actions import Actions
from hpo_service.executors.ray.backoff import Backoff
from hpo_service.executors.ray.cluster import Cluster, Host
from hpo_service.executors.ray.config import RayWorkers
from hpo_service.executors.ray.keeper import Keeper
from hpo_service.executors.ray.reattach import meet_workers
from hpo_service.executors.ray.remote_worker import RemoteWorker
from hpo_service.executors.ray.worker_choice import Choice
from hpo_service.executors.ray.worker_plan import plan
from trainer.common.failpoints import RayFailpoint, reach
from trainer.spec import JobResult, Progress, Ready, Slice, SliceResult, WorkerMessage

log = logging.getLogger(__name__)

_ADJUST_SECONDS = 0.5
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

    All state belongs to the loop's thread; answers of the cluster, which come on others, are handed to it.
    """

    name = "ray"
    lasting = True
    devices_setting = "HPO_RAY_MAX_DEVICES"

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
        self._choice = Choice(self._workers, config.slots)
        self._backoff = Backoff()
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

    @property
    def devices_present(self) -> int | None:
        return None if self._keeper.survey is None else self._keeper.survey.total

    def demand(self, wanted: Sequence[Wanted]) -> None:
        self._wanted = tuple(wanted)

    def free_slots(self, prefetch: bool, ranks: int = 1, without: Collection[str] = ()) -> int:
        return self._choice.free_slots(prefetch, ranks, without)

    def choose(
        self,
        work: Work,
        prefetch: bool,
        planned: Mapping[str, int] = MappingProxyType({}),
        without: Collection[str] = (),
    ) -> str | None:
        return self._choice.choose(work, prefetch, planned, without)

    def submit(self, work: Work, worker: str) -> None:
        if isinstance(work, Slice):
            self._choice.note(work, worker)
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
        if isinstance(message, SliceResult | JobResult):
            reach(RayFailpoint.RESULT_BEFORE_EVENT)
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
                worker.ready &= not message.ends_worker
                self._events.append(SliceEnded(worker=worker.name, result=message))
            case JobResult():
                worker.ended((message.job_id, message.attempt))
                self._events.append(JobEnded(worker=worker.name, result=message))
        if isinstance(message, SliceResult | JobResult):
            reach(RayFailpoint.RESULT_AFTER_EVENT)

    def over(self, worker: RemoteWorker, reason: str, cause: Cause, *, replaced: bool) -> None:
        """A worker has ended: say so, clear up after it, and think of a fresh one."""
        if self._workers.pop(worker.name, None) is None:
            return
        self._choice.forget(worker.name)
        if worker.launch is not None:
            event = WorkerGone(worker=worker.name, reason=reason, replaced=replaced, cause=cause, places=worker.places)
            self._events.append(event)
        if self._excluded.intersection(worker.places):
            self._parked[worker.name] = worker
        else:
            self._remove(worker)
        if cause in (Cause.WORKER_DIED, Cause.INFRA_ERROR) and not replaced:
            self._backoff.died(time.monotonic() - worker.started_at)

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
            [worker.standing(now) for worker in staying if not worker.draining],
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
        if not self._backoff.is_over(now):
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
