"""The actor beside a worker: it starts the process, relays what is said, and outlives the dispatcher.

It takes strings and numbers and answers strings. Whoever attached last is its dispatcher; others are not obeyed.
"""

import logging
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import ray

from hpo_service.core.study_rules import Cause
from hpo_service.executors.base import (
    ExecutorEvent,
    JobEnded,
    SliceEnded,
    SliceProgress,
    Token,
    Work,
    WorkerGone,
    WorkerReady,
)
from hpo_service.executors.gpus import visible_gpus
from hpo_service.executors.layout import base_of
from hpo_service.executors.ray.message_log import MessageLog
from hpo_service.executors.ray.orphans import next_step
from hpo_service.executors.ray.protocol import Ended, HostState, Launch, Place, said_list
from hpo_service.executors.worker_process import WorkerProcess, never_started
from trainer.common.failpoints import RayFailpoint, reach
from trainer.spec import Job, Slice

log = logging.getLogger(__name__)

_WATCH_SECONDS = 1.0
_NODE_CHECK_SECONDS = 2.0


class WorkerHost:
    """One rank of a worker, as a detached actor. Its methods run on threads of Ray's, commands on one, in order.

    Without a word from a dispatcher for `orphan_seconds` it stops its slices with a snapshot, and ends unless results
    are still to be taken. It ends at once when the cluster has given its node up: another worker may have its slices by
    then.
    """

    def __init__(self, name: str, orphan_seconds: int) -> None:
        self._name = name
        self._orphan_seconds = orphan_seconds
        self._log = MessageLog()
        self._place = _place()
        self._dispatcher = ""
        self._heard_at = time.monotonic()
        self._launch: Launch | None = None
        self._worker: WorkerProcess | None = None
        self._ended = False
        self._slices: set[Token] = set()
        self._jobs: set[Token] = set()
        self._base = ""
        for watch in (self._watch_dispatcher, self._watch_node):
            threading.Thread(target=watch, name=watch.__name__, daemon=True).start()

    def attach(self, dispatcher: str) -> str:
        """From now on `dispatcher` is obeyed and no other. The host's state."""
        self._dispatcher = dispatcher
        self._heard_at = time.monotonic()
        self._log.wake()
        return HostState(
            place=self._place,
            launch=self._launch,
            slices=tuple(sorted(self._slices)),
            jobs=tuple(sorted(self._jobs)),
            base=self._base,
        ).model_dump_json()

    def launch(self, dispatcher: str, launch: str) -> int:
        """Start the worker's process, if that was not done before."""
        if self._refuses(dispatcher) or self._launch is not None:
            return 0
        self._launch = Launch.model_validate_json(launch)
        reach(RayFailpoint.HOST_LAUNCH_BEFORE_START)
        self._worker = WorkerProcess.start(
            name=self._name,
            node=self._place.node,
            devices=(0,),
            command=[sys.executable, *self._launch.command],
            slots=self._launch.slots,
            log_path=Path.home() / ".cache" / "hpo" / "logs" / f"{self._name}.log",
            credentials=self._launch.credentials,
            # Ray lists in its environment what this actor was given.
            gpus=visible_gpus(os.environ),
            deliver=self._hear,
        )
        reach(RayFailpoint.HOST_LAUNCH_AFTER_START)
        return 1

    def submit(self, dispatcher: str, kind: str, work: str) -> int:
        """Hand a slice or a job to the worker; once, however often it is said."""
        if self._refuses(dispatcher) or self._worker is None:
            return 0
        piece: Work = Job.model_validate_json(work) if kind == "job" else Slice.model_validate_json(work)
        if piece.token in self._held():
            return 1
        if isinstance(piece, Slice):
            self._slices.add(piece.token)
            self._base = base_of(piece.trial.model, piece.trial.training)
        else:
            self._jobs.add(piece.token)
        reach(RayFailpoint.HOST_SUBMIT_BEFORE_SEND)
        self._worker.submit(piece)
        reach(RayFailpoint.HOST_SUBMIT_AFTER_SEND)
        return 1

    def stop(self, dispatcher: str, identity: int, attempt: int) -> int:
        """Ask for `preempted` of an attempt."""
        if self._refuses(dispatcher) or self._worker is None:
            return 0
        self._stop((identity, attempt))
        return 1

    def take(self, dispatcher: str, identity: int, attempt: int) -> int:
        """The dispatcher has kept the attempt's result."""
        if self._refuses(dispatcher):
            return 0
        token = (identity, attempt)
        if token in self._log.results():
            reach(RayFailpoint.HOST_TAKE_BEFORE_FORGET)
            self._log.take(token)
            self._slices.discard(token)
            self._jobs.discard(token)
            reach(RayFailpoint.HOST_TAKE_AFTER_FORGET)
        return 1

    def kill(self, dispatcher: str, reason: str, cause: str) -> int:
        """End the worker's process group now."""
        if self._refuses(dispatcher) or self._worker is None:
            return 0
        self._worker.kill(reason, Cause(cause))
        return 1

    def listen(self, dispatcher: str, sequence: int, wait_seconds: int) -> str:
        """What was said after `sequence`, as soon as there is something; "" for a dispatcher that is not obeyed."""
        if self._refuses(dispatcher):
            return ""
        said = self._log.after(sequence, wait_seconds)
        return "" if self._refuses(dispatcher) else said_list.dump_json(said).decode()

    def end(self, dispatcher: str) -> int:
        """End the worker and this actor."""
        if self._refuses(dispatcher):
            return 0
        threading.Thread(target=self._exit, name="end", daemon=True).start()
        return 1

    def _refuses(self, dispatcher: str) -> bool:
        if dispatcher != self._dispatcher:
            return True
        self._heard_at = time.monotonic()
        return False

    def _held(self) -> set[Token]:
        return self._slices | self._jobs

    def _running(self) -> set[Token]:
        return set() if self._ended else self._held() - self._log.results()

    def _stop(self, token: Token) -> None:
        queued = None if self._worker is None else self._worker.stop(token)
        if queued is not None:
            self._log.add(never_started(queued))

    def _hear(self, event: ExecutorEvent) -> None:
        match event:
            case WorkerReady():
                self._log.add(event.ready)
            case SliceProgress():
                self._log.add(event.progress)
            case SliceEnded() | JobEnded():
                reach(RayFailpoint.HOST_RESULT_BEFORE_KEEP)
                self._log.add(event.result)
                reach(RayFailpoint.HOST_RESULT_AFTER_KEEP)
            case WorkerGone():
                self._ended = True
                self._log.add(Ended(reason=event.reason, replaced=event.replaced, cause=event.cause))

    def _exit(self) -> None:
        if self._worker is not None:
            self._worker.hang_up()
            self._worker.join()
        os._exit(0)

    def _watch_dispatcher(self) -> None:
        while (step := self._next_step()) != "end":
            for token in self._running() if step == "stop" else ():
                self._stop(token)
            time.sleep(_WATCH_SECONDS)
        log.warning("no dispatcher has spoken to %s for %d s; it ends", self._name, self._orphan_seconds)
        self._exit()

    def _next_step(self) -> str:
        # A rank that is not the first keeps nothing, but rank 0 could not be met without it.
        follows = self._launch is not None and self._launch.rank > 0 and not self._ended
        return next_step(
            time.monotonic() - self._heard_at,
            self._orphan_seconds,
            runs=bool(self._running()),
            keeps=bool(self._log.results()) or follows,
        )

    def _watch_node(self) -> None:
        node_id = ray.get_runtime_context().get_node_id()
        while not _given_up(node_id):
            time.sleep(_NODE_CHECK_SECONDS)
        log.error("the cluster has given up node %s; worker %s ends at once", self._place.node, self._name)
        if self._worker is not None:
            self._worker.kill("the cluster has given up its node", Cause.NODE_LOST)
        os._exit(1)


def _given_up(node_id: str) -> bool:
    """Whether the cluster says that the node is dead; a cluster that does not answer says nothing."""
    with suppress(Exception):
        return any(node["NodeID"] == node_id and not node["Alive"] for node in ray.nodes())
    return False


def _place() -> Place:
    context = ray.get_runtime_context()
    address = ray.util.get_node_ip_address()
    node = next((node["NodeName"] for node in ray.nodes() if node["NodeID"] == context.get_node_id()), address)
    devices = [f"{node}/{device}" for ids in context.get_accelerator_ids().values() for device in ids]
    with socket.create_server((address, 0)) as probe:
        port = probe.getsockname()[1]
    return Place(node=node, devices=tuple(devices or [f"{node}/cpu"]), leader=f"{address}:{port}")
