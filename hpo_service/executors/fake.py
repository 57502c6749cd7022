"""An executor without processes, for tests: slices end, in order of submission, when `poll` is called."""

from collections import deque
from collections.abc import Callable, Sequence
from hashlib import sha256
from threading import Event

from hpo_service.executors.base import ExecutorEvent, SliceEnded, SliceProgress, WorkerGone, WorkerReady
from trainer.spec import Outcome, Ready, Slice, SliceResult, SnapshotRef, Usage

LossFunction = Callable[[Slice], float]


class FakeExecutor:
    """Answers every slice with `loss(slice)`; NaN means diverged. `hold` keeps slices running until it is cleared.

    All trials have `total_examples`.
    """

    name = "fake"

    def __init__(self, loss: LossFunction, *, total_examples: int = 1000, workers: int = 1, slots: int = 1) -> None:
        self.loss = loss
        self.hold = False
        self.submitted: list[Slice] = []
        self._slots = slots
        self._total_examples = total_examples
        self._workers = [f"fake-{index}" for index in range(workers)]
        self._held: dict[str, deque[Slice]] = {}
        self._stopped: set[tuple[int, int]] = set()
        self._events: deque[ExecutorEvent] = deque()
        self._wake = Event()
        self._generation = workers

    def start(self) -> None:
        for worker in self._workers:
            self._make_ready(worker)

    def free_slots(self, prefetch: bool) -> int:
        return sum(max(0, self._capacity(prefetch) - len(held)) for held in self._held.values())

    def choose(self, work: Slice, prefetch: bool) -> str | None:
        free = [name for name, held in self._held.items() if len(held) < self._capacity(prefetch)]
        return min(free, key=lambda name: len(self._held[name]), default=None)

    def submit(self, work: Slice, worker: str) -> None:
        self.submitted.append(work)
        if worker in self._held:
            self._held[worker].append(work)

    def stop_slice(self, token: tuple[int, int]) -> None:
        self._stopped.add(token)

    def poll(self, timeout_seconds: float) -> Sequence[ExecutorEvent]:
        self._end_slices()
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

    def kill(self, worker: str) -> None:
        """The worker dies with all it holds; another takes its place."""
        del self._held[worker]
        self._events.append(WorkerGone(worker=worker, reason="killed by the test"))
        self._make_ready(f"fake-{self._generation}")
        self._generation += 1

    def send_progress(self, event: SliceProgress) -> None:
        """Deliver a sign of life at the next poll."""
        self._events.append(event)

    def workers(self) -> list[str]:
        """Names of the living workers."""
        return list(self._held)

    def _capacity(self, prefetch: bool) -> int:
        return self._slots + int(prefetch)

    def _make_ready(self, worker: str) -> None:
        self._held[worker] = deque()
        self._events.append(WorkerReady(worker=worker, ready=Ready(pid=1, device="fake", software={})))

    def _end_slices(self) -> None:
        for worker, held in self._held.items():
            for work in list(held):
                if work.token in self._stopped or not self.hold:
                    held.remove(work)
                    self._events.append(SliceEnded(worker=worker, result=self._result(work)))
                    self._stopped.discard(work.token)

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
            snapshot=None if loss is None else snapshot,
            resumed_from_examples=start,
            usage=Usage(examples=examples - start, flops=1e6 * (examples - start), train_seconds=0.001),
            device="fake",
            message="" if loss is not None else f"the fake executor says {outcome}",
        )
