"""One worker of the cluster as the dispatcher deals with it: its hosts, what it holds, what it is still to be told."""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from hpo_service.core.study_rules import Cause
from hpo_service.executors.base import Token, Work
from hpo_service.executors.layout import base_of
from hpo_service.executors.ray.actions import Actions
from hpo_service.executors.ray.cluster import Answer, Host, is_final, lost_its_node
from hpo_service.executors.ray.protocol import Ended, HostState, Launch, said_list
from hpo_service.executors.ray.worker_plan import Standing
from trainer.common.failpoints import RayFailpoint, reach
from trainer.spec import Job, WorkerMessage, worker_message

log = logging.getLogger(__name__)

#: how long a call waits for news; a host that hears nothing of us for long thinks that it is an orphan
_LISTEN_SECONDS = 10
_RETRY_SECONDS = 0.5
#: how long rank 0 has to say itself that another rank is gone
_GRACE_SECONDS = 10.0
#: how long a worker has to end when it is killed, before its actors are
_KILL_SECONDS = 10.0
#: before and after a command is on its way
_FAILPOINTS = {
    "launch": (RayFailpoint.LAUNCH_BEFORE_SEND, RayFailpoint.LAUNCH_AFTER_SEND),
    "submit": (RayFailpoint.SUBMIT_BEFORE_SEND, RayFailpoint.SUBMIT_AFTER_SEND),
    "stop": (RayFailpoint.STOP_BEFORE_SEND, RayFailpoint.STOP_AFTER_SEND),
    "take": (RayFailpoint.TAKE_BEFORE_SEND, RayFailpoint.TAKE_AFTER_SEND),
}


class Owner(Protocol):
    """Who the worker reports to, on its own thread."""

    def met(self, worker: "RemoteWorker") -> None:
        """All hosts have said where they are."""

    def said(self, worker: "RemoteWorker", message: WorkerMessage) -> None:
        """The worker said something."""

    def over(self, worker: "RemoteWorker", reason: str, cause: Cause, *, replaced: bool) -> None:
        """The worker has ended; nothing comes of it any more."""


class RemoteWorker:
    """Lives on the thread that works `actions` off. `dispatcher` is the name by which its hosts know us."""

    def __init__(self, name: str, ranks: int, dispatcher: str, owner: Owner, actions: Actions) -> None:
        self.name = name
        self.ranks = ranks
        self.ready = False
        self.pid = 0
        #: takes nothing more and ends once it is idle
        self.draining = False
        #: takes nothing more as long as others need its devices more
        self.leaving = False
        #: why it was told to end
        self.let_go: str | None = None
        self.retiring = False
        self.is_over = False
        self.launch: Launch | None = None
        self.slices: set[Token] = set()
        self.alone: set[Token] = set()
        self.jobs: set[Token] = set()
        #: ended, but not known to be committed
        self.results: set[Token] = set()
        self.base = ""
        self.started_at = self.idle_since = time.monotonic()
        self._dispatcher = dispatcher
        self._owner = owner
        self._actions = actions
        self._hosts: Mapping[int, Host] = {}
        self._states: dict[int, HostState] = {}
        self._heard = dict.fromkeys(range(ranks), 0)
        self._outbox: dict[int, deque[tuple[str | int, ...]]] = {rank: deque() for rank in range(ranks)}
        self._sending: set[int] = set()
        self._blame: tuple[str, Cause] | None = None

    @property
    def placed(self) -> bool:
        """Whether the cluster had devices for all of its hosts."""
        return len(self._states) == self.ranks

    @property
    def places(self) -> tuple[str, ...]:
        """The devices that it occupies, `node/device` each."""
        return tuple(device for rank in sorted(self._states) for device in self._states[rank].place.devices)

    @property
    def node(self) -> str:
        """The node or nodes that it is on."""
        return ", ".join(dict.fromkeys(self._states[rank].place.node for rank in sorted(self._states)))

    @property
    def leader(self) -> str:
        """HOST:PORT where rank 0 waits for the others."""
        return self._states[0].place.leader

    @property
    def idle(self) -> bool:
        """Whether it holds nothing."""
        return not self.slices and not self.jobs

    def standing(self, now: float) -> Standing:
        """What a plan has to know of it; `now` is monotonic."""
        return Standing(
            worker=self.name,
            ranks=self.ranks,
            placed=self.placed,
            busy=not self.idle,
            idle_seconds=now - self.idle_since if self.ready and self.idle else 0.0,
            base=self.base,
        )

    def meet(self, hosts: Mapping[int, Host], states: Mapping[int, HostState] | None = None) -> None:
        """These are its hosts; `states` if they were asked already."""
        self._hosts = hosts
        for rank, host in hosts.items() if states is None else ():
            host.ask("attach", self._dispatcher, then=self._posting(self._attached, rank))
        for rank, state in (states or {}).items():
            self._states[rank] = state
        if states is not None:
            leader = self._states[0]
            self.launch = leader.launch
            self.slices, self.jobs, self.base = set(leader.slices), set(leader.jobs), leader.base
            self._owner.met(self)

    def start(self, launches: Mapping[int, Launch]) -> None:
        """Start its process on every host."""
        self.launch = launches[0]
        for rank, launch in launches.items():
            self._tell(rank, "launch", launch.model_dump_json())
        self.listen()

    def listen(self) -> None:
        """From now on hear what its hosts say."""
        for rank in self._hosts:
            self._listen(rank)

    def submit(self, work: Work) -> None:
        """Hand the work over."""
        if isinstance(work, Job):
            self.jobs.add(work.token)
            self._tell(0, "submit", "job", work.model_dump_json())
            return
        self.slices.add(work.token)
        if work.alone:
            self.alone.add(work.token)
        self.base = base_of(work.trial.model, work.trial.training)
        self._tell(0, "submit", "slice", work.model_dump_json())

    def stop(self, token: Token) -> None:
        """Ask for `preempted`."""
        self._tell(0, "stop", *token)

    def take(self, token: Token) -> None:
        """The result is committed."""
        self.results.discard(token)
        self._tell(0, "take", *token)

    def kill(self, reason: str, cause: Cause) -> None:
        """End it now."""
        self._blame = self._blame or (reason, cause)
        for host in self._hosts.values():
            host.ask("kill", self._dispatcher, reason, str(cause), then=_ignore)
        self._actions.later(_KILL_SECONDS, partial(self._over, reason, cause))

    def end(self, reason: str) -> None:
        """Let it go, idle as it is."""
        self.let_go = reason
        reach(RayFailpoint.END_BEFORE_SEND)
        for host in self._hosts.values():
            host.ask("end", self._dispatcher, then=_ignore)
        reach(RayFailpoint.END_AFTER_SEND)
        self._actions.later(_KILL_SECONDS, partial(self._over, reason, Cause.WORKER_ENDED))

    def ended(self, token: Token) -> None:
        """The attempt has ended."""
        self.results.add(token)
        self.slices.discard(token)
        self.alone.discard(token)
        self.jobs.discard(token)
        self.idle_since = time.monotonic()

    def _attached(self, rank: int, answer: Answer) -> None:
        if self.is_over:
            return
        if isinstance(answer, str):
            self._states[rank] = HostState.model_validate_json(answer)
            if self.placed:
                self._owner.met(self)
        elif isinstance(answer, Exception) and is_final(answer):
            self._rank_lost(rank, answer)
        else:
            attach = partial(self._hosts[rank].ask, "attach", self._dispatcher)
            self._actions.later(_RETRY_SECONDS, partial(attach, then=self._posting(self._attached, rank)))

    def _listen(self, rank: int) -> None:
        if not self.is_over:
            then = self._posting(self._answered, rank)
            self._hosts[rank].ask("listen", self._dispatcher, self._heard[rank], _LISTEN_SECONDS, then=then)

    def _answered(self, rank: int, answer: Answer) -> None:
        if self.is_over:
            return
        if isinstance(answer, Exception):
            if is_final(answer):
                self._rank_lost(rank, answer)
            else:
                self._actions.later(_RETRY_SECONDS, partial(self._listen, rank))
            return
        if not answer:
            log.warning("worker %s obeys another dispatcher now", self.name)
            return
        for said in said_list.validate_json(str(answer)):
            self._heard[rank] = said.sequence
            if said.kind == "ended":
                self._rank_ended(rank, Ended.model_validate_json(said.body))
            else:
                self._owner.said(self, worker_message.validate_json(said.body))
        self._listen(rank)

    def _rank_ended(self, rank: int, ended: Ended) -> None:
        if rank:
            self._blame_rank(rank, ended.reason, ended.cause)
            return
        self.retiring = self.retiring or ended.replaced
        self._over(ended.reason, ended.cause)

    def _rank_lost(self, rank: int, error: Exception) -> None:
        """An actor is gone for good, and with it the process that it had started."""
        where = self._states[rank].place.node if rank in self._states else "the cluster"
        if lost_its_node(error):
            reason, cause = f"worker {self.name}: node {where} is lost", Cause.NODE_LOST
        else:
            reason, cause = f"worker {self.name}: its actor on {where} ended", Cause.WORKER_DIED
        if rank:
            self._blame_rank(rank, reason, cause)
        else:
            self._over(reason, cause)

    def _blame_rank(self, rank: int, reason: str, cause: Cause) -> None:
        self._blame = self._blame or (f"rank {rank} of worker {self.name}: {reason}", cause)
        self._actions.later(_GRACE_SECONDS, partial(self._over, *self._blame))

    def _over(self, reason: str, cause: Cause) -> None:
        if self.is_over:
            return
        self.is_over = True
        if self._blame is not None:
            reason, cause = self._blame
        if self.let_go is not None:
            reason, cause = self.let_go, Cause.WORKER_ENDED
        self._owner.over(self, reason, cause, replaced=self.retiring or self.draining)

    def _tell(self, rank: int, method: str, *arguments: str | int) -> None:
        """Commands reach a host in order, each as often as it takes."""
        self._outbox[rank].append((method, *arguments))
        self._send(rank)

    def _send(self, rank: int) -> None:
        if self._outbox[rank] and rank not in self._sending and not self.is_over:
            self._sending.add(rank)
            method, *arguments = self._outbox[rank][0]
            before, after = _FAILPOINTS[str(method)]
            reach(before)
            self._hosts[rank].ask(str(method), self._dispatcher, *arguments, then=self._posting(self._told, rank))
            reach(after)

    def _told(self, rank: int, answer: Answer) -> None:
        self._sending.discard(rank)
        if isinstance(answer, Exception):
            if not is_final(answer):
                self._actions.later(_RETRY_SECONDS, partial(self._send, rank))
            return
        self._outbox[rank].popleft()
        self._send(rank)

    def _posting(self, method: Callable[..., None], *first: object) -> Callable[[Answer], None]:
        """What hands an answer, which comes on any thread, to the method on the owner's."""
        return lambda answer: self._actions.post(partial(method, *first, answer))


def _ignore(_: Answer) -> None:
    """Whether it worked is seen by what the host says next."""
