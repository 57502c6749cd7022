"""An executor without processes, for tests: slices and jobs end, in order of submission, when `poll` is called."""

from collections import deque
from collections.abc import Callable, Sequence
from hashlib import sha256
from threading import Event

from hpo_service.executors.base import (
    ExecutorEvent,
    JobEnded,
    SliceEnded,
    SliceProgress,
    Work,
    WorkerGone,
    WorkerReady,
)
from hpo_service.executors.layout import group_sizes
from trainer.spec import Job, JobResult, Outcome, QualityReport, Ready, Slice, SliceResult, SnapshotRef, Usage

LossFunction = Callable[[Slice], float]
JobFunction = Callable[[Job], JobResult]


def passed(job: Job) -> JobResult:
    """A data check that found nothing."""
    report = QualityReport(verdict="pass", findings=(), train_rows=1, eval_rows=1, train_sha256="0" * 64)
    return JobResult(
        job_id=job.job_id, attempt=job.attempt, outcome=Outcome.DONE, report=report.model_dump(mode="json"), seconds=0.5
    )


class FakeExecutor:
    """Answers every slice with `loss(slice)`; NaN means diverged. `hold` keeps slices running until it is cleared.

    All trials have `total_examples`. Every job is answered with `answer(job)`; `hold_jobs` keeps jobs running.
    """

    name = "fake"

    def __init__(self, loss: LossFunction, *, total_examples: int = 1000, workers: int = 1, slots: int = 1) -> None:
        self.loss = loss
        self.answer: JobFunction = passed
        self.hold = False
        self.hold_jobs = False
        self.submitted: list[Slice] = []
        self.jobs: list[Job] = []
        self._slots = slots
        self._total_examples = total_examples
        self._workers = [f"fake-{index}" for index in range(workers)]
        self._devices = workers
        self._ranks: dict[str, int] = {}
        self._held: dict[str, deque[Slice]] = {}
        self._held_jobs: dict[str, Job] = {}
        self._stopped: set[tuple[int, int]] = set()
        self._events: deque[ExecutorEvent] = deque()
        self._wake = Event()
        self._generation = workers

    def start(self) -> None:
        for worker in self._workers:
            self._make_ready(worker)

    @property
    def largest_group(self) -> int:
        return self._devices

    def demand(self, ranks: Sequence[int]) -> None:
        sizes = group_sizes(ranks, self._devices)
        idle = not any(self._held.values()) and not self._held_jobs
        if not ranks or not idle or sorted(sizes) == sorted(self._ranks[worker] for worker in self._held):
            return
        for worker in list(self._held):
            del self._held[worker]
            self._events.append(WorkerGone(worker=worker, reason="its devices are wanted otherwise"))
        for size in sizes:
            self._make_ready(f"fake-{self._generation}", size)
            self._generation += 1

    def free_slots(self, prefetch: bool, ranks: int = 1) -> int:
        loads = [len(held) for worker, held in self._held.items() if self._ranks[worker] == ranks]
        return sum(max(0, self._capacity(prefetch) - load) for load in loads)

    def choose(self, work: Work, prefetch: bool) -> str | None:
        if isinstance(work, Job):
            return next((name for name in self._held if name not in self._held_jobs), None)
        suitable = {name: held for name, held in self._held.items() if self._ranks[name] == work.trial.training.ranks}
        free = [name for name, held in suitable.items() if len(held) < self._capacity(prefetch)]
        return min(free, key=lambda name: len(self._held[name]), default=None)

    def submit(self, work: Work, worker: str) -> None:
        if isinstance(work, Job):
            self.jobs.append(work)
            if worker in self._held:
                self._held_jobs[worker] = work
            return
        self.submitted.append(work)
        if worker in self._held:
            self._held[worker].append(work)

    def stop(self, token: tuple[int, int]) -> None:
        self._stopped.add(token)

    def poll(self, timeout_seconds: float) -> Sequence[ExecutorEvent]:
        self._end_slices()
        self._end_jobs()
        if not self._events:
            self._wake.wait(timeout_seconds)
        self._wake.clear()
        events = list(self._events)
        self._events.clear()
        return events

    def wake(self) -> None:
        self._wake.set()

    def close(self) -> None:
        self._held.clear()
        self._held_jobs.clear()

    def kill(self, worker: str) -> None:
        """The worker dies with all it holds; another takes its place."""
        del self._held[worker]
        self._held_jobs.pop(worker, None)
        self._events.append(WorkerGone(worker=worker, reason="killed by the test"))
        self._make_ready(f"fake-{self._generation}", self._ranks[worker])
        self._generation += 1

    def send_progress(self, event: SliceProgress) -> None:
        """Deliver a sign of life at the next poll."""
        self._events.append(event)

    def workers(self) -> list[str]:
        """Names of the living workers."""
        return list(self._held)

    def _capacity(self, prefetch: bool) -> int:
        return self._slots + int(prefetch)

    def _make_ready(self, worker: str, ranks: int = 1) -> None:
        self._held[worker] = deque()
        self._ranks[worker] = ranks
        self._events.append(WorkerReady(worker=worker, ready=Ready(pid=1, device="fake", ranks=ranks, software={})))

    def _end_slices(self) -> None:
        for worker, held in self._held.items():
            for work in list(held):
                if work.token in self._stopped or not self.hold:
                    held.remove(work)
                    self._events.append(SliceEnded(worker=worker, result=self._result(work)))
                    self._stopped.discard(work.token)

    def _end_jobs(self) -> None:
        for worker, job in list(self._held_jobs.items()):
            if job.token in self._stopped or not self.hold_jobs:
                del self._held_jobs[worker]
                stopped = JobResult(job_id=job.job_id, attempt=job.attempt, outcome=Outcome.PREEMPTED)
                result = stopped if job.token in self._stopped else self.answer(job)
                self._events.append(JobEnded(worker=worker, result=result))
                self._stopped.discard(job.token)

    def _result(self, work: Slice) -> SliceResult:
        start = work.snapshots[0].examples_seen if work.snapshots else 0
        if work.token in self._stopped:
            return self._ended(work, Outcome.PREEMPTED, start, None)
        loss = self.loss(work)
        if loss != loss:
            return self._ended(work, Outcome.DIVERGED, start, None)
        return self._ended(work, Outcome.DONE, work.until_examples, loss)

    def _ended(self, work: Slice, outcome: Outcome, examples: int, loss: float | None) -> SliceResult:
        start = work.snapshots[0].examples_seen if work.snapshots else 0
        digest = sha256(work.snapshot_dir.encode()).hexdigest()
        snapshot = SnapshotRef(path=work.snapshot_dir, digest=digest, examples_seen=examples)
        return SliceResult(
            slice_id=work.slice_id,
            attempt=work.attempt,
            outcome=outcome,
            examples_seen=examples,
            finished=loss is not None and examples >= self._total_examples,
            eval_loss=loss,
            eval_tokens=None if loss is None else 1,
            test_loss=loss if work.trial.data.test is not None else None,
            adapter_parameters=1000 * work.trial.parameters.lora_r,
            snapshot=None if loss is None else snapshot,
            resumed_from_examples=start,
            usage=Usage(examples=examples - start, flops=1e6 * (examples - start), train_seconds=0.001),
            device="fake",
            message="" if loss is not None else f"the fake executor says {outcome}",
        )
