"""The loop of a worker: slices that are running take turns, one piece of work each."""

import logging
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue

from pydantic import BaseModel

from trainer.devices import device_name, prepare_device, software_versions
from trainer.errors import BaseChangedError
from trainer.residents import Residents
from trainer.slices import SliceRun
from trainer.snapshot import SnapshotStore
from trainer.spec import Outcome, Ready, Slice, SliceResult, StartJob, StartSlice, WorkerCommand

#: exit status of a worker whose base model was written to
BASE_CHANGED = 70

_log = logging.getLogger("trainer.worker")


class Turns:
    """Starts slices as they come, gives each a turn, and sends what they say."""

    def __init__(self, residents: Residents, store: SnapshotStore, send: Callable[[BaseModel], None]) -> None:
        self._residents = residents
        self._store = store
        self._send = send
        self._running: deque[SliceRun] = deque()
        self._waiting: deque[Slice] = deque()

    @property
    def busy(self) -> bool:
        """Whether there is work to do."""
        return bool(self._running or self._waiting)

    def obey(self, command: WorkerCommand) -> None:
        """Take a slice in, or ask a running one to stop. A token that is not here is ignored."""
        if isinstance(command, StartSlice):
            if command.slice.token not in self._tokens():
                self._waiting.append(command.slice)
            return
        if isinstance(command, StartJob):
            raise NotImplementedError
        token = (command.slice_id, command.attempt)
        for run in self._running:
            if run.slice.token == token:
                run.stop()
        for slice_ in [slice_ for slice_ in self._waiting if slice_.token == token]:
            self._waiting.remove(slice_)
            self._send(_never_started(slice_))

    def tick(self) -> None:
        """Start what can be started, then one piece of work of the run whose turn it is.

        Raises:
            BaseChangedError: this process must end.
        """
        self._start()
        run = self._running.popleft()
        result = run.tick()
        if result is None:
            self._running.append(run)
        else:
            self._send(result)

    def _start(self) -> None:
        """In order of arrival; a slice on another base waits until nothing runs on the warm one."""
        while self._waiting:
            if self._running and self._running[0].slice.trial.model != self._waiting[0].trial.model:
                return
            self._running.append(SliceRun(self._waiting.popleft(), self._residents, self._store, self._send))

    def _tokens(self) -> set[tuple[int, int]]:
        return {run.slice.token for run in self._running} | {slice_.token for slice_ in self._waiting}


def serve(
    snapshots: Path,
    threads: int,
    resident: int,
    commands: SimpleQueue[WorkerCommand],
    send: Callable[[BaseModel], None],
) -> None:
    """Say `ready`, then run what `commands` brings, for ever."""
    device = prepare_device(threads)
    snapshots.mkdir(parents=True, exist_ok=True)
    turns = Turns(Residents(device, resident), SnapshotStore(snapshots), send)
    send(Ready(pid=os.getpid(), device=device_name(device), software=software_versions()))
    while True:
        try:
            while True:
                turns.obey(commands.get(block=not turns.busy))
        except Empty:
            pass
        try:
            turns.tick()
        except BaseChangedError as error:
            _log.critical("%s; the worker ends", error)
            os._exit(BASE_CHANGED)


def _never_started(slice_: Slice) -> SliceResult:
    newest = max(slice_.snapshots, key=lambda ref: ref.examples_seen, default=None)
    examples_seen = newest.examples_seen if newest else 0
    return SliceResult(
        slice_id=slice_.slice_id,
        attempt=slice_.attempt,
        outcome=Outcome.PREEMPTED,
        examples_seen=examples_seen,
        resumed_from_examples=examples_seen,
        snapshot=newest,
        message="the slice was stopped before it started",
    )
