"""The loop of a worker: slices that are running take turns, one piece of work each."""

import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, Queue
from typing import NoReturn

import torch
from pydantic import BaseModel

from trainer.accounting.devices import auto_dtype, device_name, software_versions
from trainer.common.errors import BaseChangedError, UserError
from trainer.common.failpoints import Failpoint, reach
from trainer.common.logs import bound
from trainer.distributed.ranks import Ranks
from trainer.distributed.worker_group import OUT_OF_MEMORY, RANK_LOST, WorkerGroup
from trainer.snapshots.snapshot import SnapshotStore
from trainer.snapshots.snapshot_together import find_marker_together
from trainer.snapshots.stores import open_store
from trainer.spec import Outcome, Ready, Slice, SliceResult, StartJob, StartSlice, WorkerCommand, worker_command
from trainer.worker.jobs import JobRuns
from trainer.worker.resident_trials import Residents
from trainer.worker.slice_report import never_started
from trainer.worker.slice_run import SliceRun, resolved

#: exit status of a worker whose base model was written to
BASE_CHANGED = 70
#: exit status of a worker that leaks memory and is to be replaced by a fresh one
RECYCLE = 75
_GOODBYE_SECONDS = 0.5
_JOB_POLL_SECONDS = 0.1
#: how often the ranks of an idle group hear that there is nothing to do, well below any time limit of theirs
_SIGN_OF_LIFE_SECONDS = 5.0
#: how often rank 0 asks whether memory ran out on another rank, and how long that one leaves it the word
_HELP_POLL_SECONDS = 0.2
_HELP_SECONDS = 10.0

_log = logging.getLogger("trainer.worker")


class OutOfStep(Exception):
    """A rank failed where the others wait for it; `result` is its own account of the slice that it ran, if any."""

    def __init__(self, message: str, result: SliceResult | None = None) -> None:
        super().__init__(message)
        self.result = result


class Turns:
    """Starts slices as they come, gives each a turn, and sends what they say."""

    def __init__(self, residents: Residents, store: SnapshotStore, send: Callable[[BaseModel], None]) -> None:
        self._residents = residents
        self._ranks = residents.ranks
        self._store = store
        self._send = send
        self._running: deque[SliceRun] = deque()
        self._waiting: deque[Slice] = deque()
        self._jobs = JobRuns(residents.scratch, store.location, torch.get_num_threads())
        self._retiring = False
        self._ending = threading.Lock()

    @property
    def has_jobs(self) -> bool:
        """Whether child processes are at work that `tick` looks after."""
        return bool(self._jobs)

    @property
    def busy(self) -> bool:
        """Whether there are slices to work at."""
        return bool(self._running or self._waiting)

    def abandoned(self, outcome: Outcome, message: str, own: SliceResult | None = None) -> list[SliceResult]:
        """How the slices end that have started, as this process ends now.

        `own` is the account of the slice that failed, where there is one: then it was the only one. It is told once: a
        second thread that asks waits here for the end that the first one brings.
        """
        self._ending.acquire()
        last = {"outcome": outcome, "message": message, "ends_worker": True}
        if own is not None:
            return [own.model_copy(update=last)]
        return [run.abandoned(outcome, message).model_copy(update={"ends_worker": True}) for run in list(self._running)]

    @property
    def retired(self) -> bool:
        """Whether the worker is to be replaced, and nothing is left to finish."""
        return self._retiring and not self.busy and not self.has_jobs

    def obey(self, command: WorkerCommand) -> None:
        """Take a slice or job in, or ask a running one to stop. A token that is not here is ignored."""
        if self._retiring and isinstance(command, StartSlice):
            self._send(never_started(command.slice))
            return
        if isinstance(command, StartSlice):
            if command.slice.token not in self._tokens():
                self._waiting.append(resolved(command.slice, self._residents.device))
            return
        if isinstance(command, StartJob):
            if self._ranks.leads:
                self._send_if(self._jobs.start(command.job))
            return
        token = (command.slice_id, command.attempt)
        self._send_if(self._jobs.stop(token))
        for run in self._running:
            if run.slice.token == token:
                run.stop()
        for slice_ in [slice_ for slice_ in self._waiting if slice_.token == token]:
            self._waiting.remove(slice_)
            self._send(never_started(slice_))

    def tick(self) -> None:
        """Report jobs that ended, start what can be started, then one piece of work of the run whose turn it is.

        Raises:
            BaseChangedError: this process must end.
            OutOfStep: this rank and the others are no longer at the same place; it must end as well.
        """
        for ended in self._jobs.ended():
            self._send(ended)
        self._start()
        if not self._running:
            return
        run = self._running[0]
        with bound(slice_id=run.slice.slice_id, attempt=run.slice.attempt):
            result = run.tick()
        self._running.popleft()
        if result is None:
            self._running.append(run)
            return
        if run.broken:
            raise OutOfStep(result.message, result)
        reach(Failpoint.RESULT_BEFORE_SEND)
        self._send(result)
        reach(Failpoint.RESULT_AFTER_SEND)
        if self._ranks.decide(any(notice.kind == "memory_growth" for notice in result.notices)):
            self._retire()

    def _retire(self) -> None:
        """Take nothing more; what runs stops at its next step boundary."""
        self._retiring = True
        for run in self._running:
            run.stop()
        while self._waiting:
            self._send(never_started(self._waiting.popleft()))

    def _start(self) -> None:
        """In order of arrival; a slice on another base waits until nothing runs on the warm one.

        A worker group runs one at a time, since its trials share one adapter.
        """
        while self._waiting:
            others = self._ranks.size > 1 or (
                self._running and self._running[0].slice.trial.model != self._waiting[0].trial.model
            )
            if self._running and others:
                return
            self._running.append(SliceRun(self._waiting.popleft(), self._residents, self._store, self._send))

    def _send_if(self, result: BaseModel | None) -> None:
        if result is not None:
            self._send(result)

    def _tokens(self) -> set[tuple[int, int]]:
        return {run.slice.token for run in self._running} | {slice_.token for slice_ in self._waiting}


def serve(
    snapshots: str,
    residents: Residents,
    commands: Queue[WorkerCommand],
    send: Callable[[BaseModel], None],
    group: WorkerGroup | None = None,
) -> None:
    """Say `ready`, then run what `commands` brings, for ever. In a worker group only rank 0 hears and says anything.

    `snapshots` is the location of the snapshot store.
    """
    ranks = residents.ranks
    try:
        store = open_store(snapshots)
    except UserError as error:
        _wait_for_the_end(residents, send, str(error))
    turns = Turns(residents, SnapshotStore(store), send)
    if group is not None:
        group.abandoned = turns.abandoned
    if ranks.size > 1 and ranks.leads:
        threading.Thread(target=_watch_memory, args=(turns, ranks, group, send), name="memory", daemon=True).start()
    ready = _ready(residents, *find_marker_together(store, ranks))
    reach(Failpoint.READY_BEFORE_SEND)
    send(ready)
    while True:
        try:
            for command in _heard(turns, ranks, commands):
                reach(Failpoint.COMMAND_TAKEN)
                turns.obey(command)
            turns.tick()
        except BaseChangedError as error:
            _log.critical("%s; the worker ends", error)
            os._exit(BASE_CHANGED)
        except OutOfStep as error:
            _end_group(turns, error, ranks, group, send)
        if turns.retired and ranks.leads:
            _say_goodbye(turns, commands)
        if turns.retired and ranks.leads:
            _log.warning("memory grows from slice to slice; the worker ends, to be replaced")
            os._exit(RECYCLE)


def _ready(residents: Residents, marker: str, problem: str) -> Ready:
    return Ready(
        pid=os.getpid(),
        device=device_name(residents.device),
        auto_dtype=auto_dtype(residents.device),
        ranks=residents.ranks.size,
        software=software_versions(),
        marker=marker,
        marker_problem=problem,
    )


def _wait_for_the_end(residents: Residents, send: Callable[[BaseModel], None], problem: str) -> NoReturn:
    """Without a store nothing can be done; whoever started the worker reads why, and ends it."""
    send(_ready(residents, "", problem))
    while True:
        time.sleep(_SIGN_OF_LIFE_SECONDS)


def _heard(turns: Turns, ranks: Ranks, commands: Queue[WorkerCommand]) -> list[WorkerCommand]:
    """What came since the last time; waits for it while there is nothing to do. The same on all ranks."""
    heard: list[WorkerCommand] = []
    if ranks.leads:
        timeout_seconds = _JOB_POLL_SECONDS if turns.has_jobs else _SIGN_OF_LIFE_SECONDS if ranks.size > 1 else None
        with suppress(Empty):
            while True:
                heard.append(commands.get(block=not (turns.busy or heard), timeout=timeout_seconds))
    if ranks.size == 1:
        return heard
    try:
        said = ranks.tell(json.dumps([command.model_dump(mode="json") for command in heard]).encode())
    except RuntimeError as error:
        raise OutOfStep(f"another rank does not answer: {error}") from error
    return [worker_command.validate_python(command) for command in json.loads(said)]


def _end_group(
    turns: Turns, error: OutOfStep, ranks: Ranks, group: WorkerGroup | None, send: Callable[[BaseModel], None]
) -> NoReturn:
    """Say why, as well as is known, and end this process.

    A rank whose memory ran out stays for a moment, so that rank 0 learns why before it loses the connection.
    """
    outcome = error.result.outcome if error.result is not None else Outcome.INFRA_ERROR
    message = str(error)
    if outcome is Outcome.OOM and not ranks.leads:
        _log.critical("%s; the worker group ends", message)
        ranks.tell_out_of_memory()
        time.sleep(_HELP_SECONDS)
        os._exit(OUT_OF_MEMORY)
    if group is not None and outcome is not Outcome.OOM:
        outcome, message = group.verdict(outcome, message)
    _say_last(turns.abandoned(outcome, message, error.result), message, outcome, group, send)


def _watch_memory(turns: Turns, ranks: Ranks, group: WorkerGroup | None, send: Callable[[BaseModel], None]) -> NoReturn:
    """End rank 0, which may wait in a collective for ever, once memory ran out on another rank."""
    while (rank := ranks.out_of_memory()) is None:
        time.sleep(_HELP_POLL_SECONDS)
    message = f"rank {rank} of the worker group ran out of memory"
    _say_last(turns.abandoned(Outcome.OOM, message), message, Outcome.OOM, group, send)


def _say_last(
    results: list[SliceResult],
    message: str,
    outcome: Outcome,
    group: WorkerGroup | None,
    send: Callable[[BaseModel], None],
) -> NoReturn:
    _log.critical("%s; the worker group ends", message)
    for result in results:
        send(result)
    if group is not None:
        group.kill()
    os._exit(OUT_OF_MEMORY if outcome is Outcome.OOM else RANK_LOST)


def _say_goodbye(turns: Turns, commands: Queue[WorkerCommand]) -> None:
    """Answer what was sent before the last result was read."""
    with suppress(Empty):
        while True:
            turns.obey(commands.get(timeout=_GOODBYE_SECONDS))
