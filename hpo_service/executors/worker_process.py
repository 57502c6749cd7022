"""One local worker: its process, its pipes, the slices and the job it holds."""

import logging
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ValidationError

from hpo_service.core.study_rules import Cause
from hpo_service.executors.base import ExecutorEvent, JobEnded, SliceEnded, SliceProgress, Work, WorkerGone, WorkerReady
from hpo_service.executors.gpus import told
from trainer.common.failpoints import VARIABLE, Failpoint, reach
from trainer.common.logs import FORMAT_VARIABLE
from trainer.spec import (
    Job,
    JobResult,
    Outcome,
    Progress,
    Ready,
    Slice,
    SliceResult,
    StartJob,
    StartSlice,
    StopSlice,
    worker_message,
)

log = logging.getLogger(__name__)

_JOIN_SECONDS = 5.0
#: A worker sees these variables and no other: it holds no database URL and no key.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "PYTHONPATH", "TZ")
#: the meaning of GPU indices, and how torch's allocator is tuned
_PASSED_ON_TO_CUDA = ("CUDA_DEVICE_ORDER", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


def worker_environment(
    devices: tuple[int, ...],
    parent: Mapping[str, str],
    credentials: Sequence[str] = (),
    gpus: tuple[str, ...] | None = None,
) -> dict[str, str]:
    """Environment of a worker on these `devices`: an allow-list, offline hubs, those of the `gpus` that are its own.

    `credentials` are beginnings of the names of variables with which it reaches its snapshot store.
    """
    env = {
        name: parent[name] for name in (*_PASSED_ON, *_PASSED_ON_TO_CUDA, VARIABLE, FORMAT_VARIABLE) if name in parent
    }
    prefixes = ("OMP_", "MKL_", "OPENBLAS_", "NVIDIA_", "NCCL_", "GLOO_", *credentials)
    env |= {name: value for name, value in parent.items() if name.startswith(prefixes)}
    env |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return env | told(gpus, devices)


class WorkerProcess:
    """A `trainer.worker` child in a session of its own. Thread-safe: a reader thread delivers what it says."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        *,
        name: str,
        node: str,
        devices: tuple[int, ...],
        slots: int,
        deliver: Callable[[ExecutorEvent], None],
    ) -> None:
        self.name = name
        self.devices = devices
        self.places = tuple(f"{node}/{device}" for device in devices)
        self.ready = False
        #: takes nothing more, since its devices are wanted otherwise
        self.leaving = False
        #: takes nothing more and ends once it is idle, whatever studies want
        self.draining = False
        self.hung_up_at: float | None = None
        #: ends by itself, which is no crash
        self.retiring = False
        self.started_at = time.monotonic()
        self._process = process
        self._node = node
        self._slots = slots
        self._deliver = deliver
        self._lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._killed: tuple[str, Cause] | None = None
        self._retires_for = "its memory grew"
        self._active: set[tuple[int, int]] = set()
        self._alone: set[tuple[int, int]] = set()
        self._queued: deque[Slice] = deque()
        self._jobs: set[tuple[int, int]] = set()
        self._reader = threading.Thread(target=self._read, name=f"{name}-reader", daemon=True)

    @classmethod
    def start(
        cls,
        *,
        name: str,
        node: str,
        devices: tuple[int, ...],
        command: Sequence[str],
        slots: int,
        log_path: Path,
        credentials: Sequence[str],
        gpus: tuple[str, ...] | None,
        deliver: Callable[[ExecutorEvent], None],
    ) -> "WorkerProcess":
        """Start the child; it reports ready when its imports are done."""
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as worker_log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=worker_log,
                env=worker_environment(devices, os.environ, credentials, gpus),
                start_new_session=True,
            )
        worker = cls(process, name=name, node=node, devices=devices, slots=slots, deliver=deliver)
        worker._reader.start()
        return worker

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    @property
    def load(self) -> int:
        """Slices it runs and slices queued for it."""
        with self._lock:
            return len(self._active) + len(self._queued)

    def room(self, prefetch: bool) -> int:
        """How many more slices it would take now; with `prefetch`, one may be queued."""
        with self._lock:
            if self._alone:
                return 0
            return max(0, self._slots + int(prefetch) - len(self._active) - len(self._queued))

    @property
    def has_job(self) -> bool:
        """Whether a job runs beside its slices."""
        with self._lock:
            return bool(self._jobs)

    def submit(self, work: Work) -> None:
        """Run the slice now, or as soon as a slot is free; a job now."""
        if isinstance(work, Job):
            with self._lock:
                self._jobs.add(work.token)
            self._send(StartJob(job=work))
            return
        with self._lock:
            if work.alone:
                self._alone.add(work.token)
            if len(self._active) >= self._slots:
                self._queued.append(work)
                return
            self._active.add(work.token)
        self._send(StartSlice(slice=work))

    def stop(self, token: tuple[int, int]) -> Slice | None:
        """Stop a running attempt at its next step boundary, a job at once; a queued one is taken back and returned."""
        with self._lock:
            queued = next((work for work in self._queued if work.token == token), None)
            if queued is not None:
                self._queued.remove(queued)
                self._alone.discard(token)
                return queued
            running = token in self._active or token in self._jobs
        if running:
            self._send(StopSlice(slice_id=token[0], attempt=token[1]))
        return None

    @property
    def idle(self) -> bool:
        """Whether it holds nothing."""
        return self.load == 0 and not self.has_job

    @property
    def hung_up(self) -> bool:
        """Whether it was told to end."""
        return self.hung_up_at is not None

    def hang_up(self) -> None:
        """Close its stdin: the worker exits at once, unless it hears nothing any more."""
        self.hung_up_at = time.monotonic()
        with suppress(OSError):
            self._stdin.close()

    def kill(self, reason: str, cause: Cause) -> None:
        """End its process group, stopped or not; `reason` and `cause` say why."""
        self._killed = self._killed or (reason, cause)
        self.ready = False
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def join(self) -> None:
        """Wait for the end; after a grace time the whole process group is killed."""
        try:
            self._process.wait(_JOIN_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._reader.join(_JOIN_SECONDS)

    @property
    def _stdin(self) -> IO[bytes]:
        stdin = self._process.stdin
        assert stdin is not None
        return stdin

    def _send(self, command: BaseModel) -> None:
        reach(Failpoint.COMMAND_BEFORE_SEND)
        # A broken pipe is the reader's to report: it sees the end of stdout.
        with self._write_lock, suppress(BrokenPipeError, ValueError):
            self._stdin.write(command.model_dump_json().encode() + b"\n")
            self._stdin.flush()

    def _read(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        with stdout:
            for line in stdout:
                self._hear(line)
        code = self._process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        why = f": {self._retires_for}, a fresh one replaces it" if self.retiring else ""
        reason, cause = f"worker {self.name} (pid {self.pid}) ended with {how}{why}", Cause.WORKER_DIED
        if self.retiring or self.hung_up:
            cause = Cause.WORKER_ENDED
        if self._killed is not None:
            reason, cause = self._killed
        replaced = self.retiring or self.draining
        self._deliver(WorkerGone(worker=self.name, reason=reason, replaced=replaced, cause=cause, places=self.places))

    def _hear(self, line: bytes) -> None:
        try:
            message = worker_message.validate_json(line)
        except ValidationError as error:
            log.error("worker %s sent a line that is no message: %s", self.name, error)
            return
        reach(Failpoint.MESSAGE_BEFORE_DELIVERY)
        if isinstance(message, SliceResult):
            self._note_end(message)
            self._release((message.slice_id, message.attempt))
            self._deliver(SliceEnded(worker=self.name, result=message))
        elif isinstance(message, JobResult):
            with self._lock:
                self._jobs.discard((message.job_id, message.attempt))
            self._deliver(JobEnded(worker=self.name, result=message))
        elif isinstance(message, Progress):
            self._deliver(SliceProgress(worker=self.name, progress=message))
        elif isinstance(message, Ready):
            self._deliver(WorkerReady(worker=self.name, ready=message, node=self._node, places=self.places))

    def _note_end(self, result: SliceResult) -> None:
        """See whether the worker ends after this result, so that nothing more is given to it."""
        if result.ends_worker:
            self.ready = False
        if result.ends_worker and result.outcome is Outcome.OOM:
            self.retiring, self._retires_for = True, "memory ran out on one of its ranks"
        elif any(notice.kind == "memory_growth" for notice in result.notices):
            # It ends when all it runs has stopped; what still comes it answers with `preempted`.
            self.retiring = True

    def _release(self, token: tuple[int, int]) -> None:
        with self._lock:
            self._active.discard(token)
            self._alone.discard(token)
            following = self._queued.popleft() if self._queued else None
            if following is not None:
                self._active.add(following.token)
        if following is not None:
            self._send(StartSlice(slice=following))


def never_started(work: Slice) -> SliceResult:
    """The end of a slice that was stopped while it was queued: the trial is where it was."""
    seen = work.snapshots[0].examples_seen if work.snapshots else 0
    return SliceResult(
        slice_id=work.slice_id,
        attempt=work.attempt,
        outcome=Outcome.PREEMPTED,
        examples_seen=seen,
        resumed_from_examples=seen,
        message="stopped before it began",
    )
