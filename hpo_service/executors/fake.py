"""An executor without processes, for tests: slices and jobs end, in order of submission, when `poll` is called."""

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from queue import Empty, Queue
from types import MappingProxyType

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
from hpo_service.executors.layout import group_sizes
from trainer.spec import Dtype, Job, JobResult, Outcome, QualityReport, Ready, Slice, SliceResult, SnapshotRef, Usage

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
    lasting = False
    devices_setting = "workers"

    def __init__(self, loss: LossFunction, *, total_examples: int = 1000, workers: int = 1, slots: int = 1) -> None:
        self.loss = loss
        self.answer: JobFunction = passed
        #: what is installed on its workers
        self.software: dict[str, str] = {}
        #: what `model.dtype: auto` is on the devices that are not CPUs, by place
        self.auto_dtypes: dict[str, Dtype] = {}
        #: what its workers find in their snapshot store
        self.read_marker: Callable[[], str] = str
        self.hold = False
        self.hold_jobs = False
        self.submitted: list[Slice] = []
        self.jobs: list[Job] = []
        self._slots = slots
        self._total_examples = total_examples
        self._workers = [f"fake-{index}" for index in range(workers)]
        self._devices = workers
        self._places: dict[str, tuple[str, ...]] = {}
        self._draining: set[str] = set()
        self._excluded: set[str] = set()
        self._held: dict[str, deque[Slice]] = {}
        self._held_jobs: dict[str, Job] = {}
        self._stopped: set[tuple[int, int]] = set()
        self._events: deque[ExecutorEvent] = deque()
        self._woken: Queue[None] = Queue()
        self._generation = workers

    def start(self) -> None:
        for worker, place in zip(self._workers, self._all_places(), strict=True):
            if place not in self._excluded:
                self._make_ready(worker, (place,))

    def reattach(self) -> Mapping[str, Sequence[Token]]:
        return {}

    def taken(self, tokens: Collection[Token]) -> None:
        pass

    @property
    def largest_group(self) -> int:
        return self._devices

    @property
    def devices_present(self) -> int | None:
        return self._devices

    def demand(self, wanted: Sequence[Wanted]) -> None:
        free = [place for place in self._all_places() if place not in self._excluded]
        sizes = group_sizes([want.ranks for want in wanted], len(free))
        idle = not any(self._held.values()) and not self._held_jobs
        staying = [worker for worker in self._held if not self._excluded.intersection(self._places[worker])]
        if not wanted or not idle or sorted(sizes) == sorted(len(self._places[worker]) for worker in staying):
            return
        for worker in staying:
            self._end(worker, "its devices are wanted otherwise", Cause.WORKER_ENDED)
        for size in sizes:
            if size <= len(free):
                self._replace(tuple(free[:size]))
                del free[:size]

    def free_slots(self, prefetch: bool, ranks: int = 1, without: Collection[str] = ()) -> int:
        return sum(self._room(worker, prefetch) for worker in self._taking(ranks) if worker not in without)

    def choose(
        self,
        work: Work,
        prefetch: bool,
        planned: Mapping[str, int] = MappingProxyType({}),
        without: Collection[str] = (),
    ) -> str | None:
        if isinstance(work, Job):
            idle = (name for name in self._taking() if name not in self._held_jobs)
            return next((name for name in idle if not (planned.get(name) or name in without)), None)
        suitable = [name for name in self._taking(work.trial.training.ranks) if name not in without]
        loads = {name: len(self._held[name]) + planned.get(name, 0) for name in suitable}
        free = [
            name
            for name in suitable
            if (not loads[name] if work.alone else self._room(name, prefetch) > planned.get(name, 0))
        ]
        return min(free, key=loads.__getitem__, default=None)

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

    def kill(self, worker: str, reason: str = "killed by the test", cause: Cause = Cause.WORKER_DIED) -> None:
        if worker in self._held:
            places = self._end(worker, reason, cause)
            self._replace(places)

    def drain(self, worker: str) -> None:
        if worker in self._held:
            self._draining.add(worker)

    def exclude(self, places: Sequence[str]) -> None:
        self._excluded |= set(places)
        self._draining |= {worker for worker in self._held if self._excluded.intersection(self._places[worker])}

    def include(self, places: Sequence[str]) -> None:
        taken = {place for worker in self._held for place in self._places[worker]}
        again = self._excluded.intersection(places)
        self._excluded -= again
        for place in sorted(again - taken):
            self._replace((place,))

    def poll(self, timeout_seconds: float) -> Sequence[ExecutorEvent]:
        self._end_slices()
        self._end_jobs()
        self._end_drained()
        with suppress(Empty):
            self._woken.get(block=not self._events, timeout=timeout_seconds)
            while True:
                self._woken.get_nowait()
        events = list(self._events)
        self._events.clear()
        return events

    def wake(self) -> None:
        self._woken.put(None)

    def close(self) -> None:
        self._held.clear()
        self._held_jobs.clear()

    def send_progress(self, event: SliceProgress) -> None:
        """Deliver a sign of life at the next poll."""
        self._events.append(event)

    def workers(self) -> list[str]:
        """Names of the living workers."""
        return list(self._held)

    def _all_places(self) -> list[str]:
        return [f"fake/{index}" for index in range(self._devices)]

    def _taking(self, ranks: int | None = None) -> list[str]:
        """Workers that take work, of any or of that number of ranks."""
        return [
            worker
            for worker in self._held
            if worker not in self._draining and ranks in (None, len(self._places[worker]))
        ]

    def _room(self, worker: str, prefetch: bool) -> int:
        held = self._held[worker]
        return 0 if any(work.alone for work in held) else max(0, self._slots + int(prefetch) - len(held))

    def _end(self, worker: str, reason: str, cause: Cause, *, replaced: bool = False) -> tuple[str, ...]:
        """The worker is gone with all it holds; where it was."""
        del self._held[worker]
        self._held_jobs.pop(worker, None)
        self._draining.discard(worker)
        places = self._places.pop(worker)
        self._events.append(WorkerGone(worker=worker, reason=reason, replaced=replaced, cause=cause, places=places))
        return places

    def _end_drained(self) -> None:
        for worker in [worker for worker in self._draining if not self._held[worker] and worker not in self._held_jobs]:
            places = self._end(worker, f"worker {worker} was drained", Cause.WORKER_ENDED, replaced=True)
            self._replace(places)

    def _replace(self, places: tuple[str, ...]) -> None:
        """A fresh worker at these places, one each if some of them are excluded."""
        left = [place for place in places if place not in self._excluded]
        for group in [places] if len(left) == len(places) else [(place,) for place in left]:
            self._make_ready(f"fake-{self._generation}", group)
            self._generation += 1

    def _make_ready(self, worker: str, places: tuple[str, ...]) -> None:
        self._held[worker] = deque()
        self._places[worker] = places
        ready = Ready(
            pid=1,
            device="fake",
            auto_dtype=self.auto_dtypes.get(places[0], "float32"),
            ranks=len(places),
            software=dict(self.software),
            marker=self.read_marker(),
        )
        self._events.append(WorkerReady(worker=worker, ready=ready, node="fake", places=places))

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
            dtype=work.trial.model.resolved_dtype,
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
