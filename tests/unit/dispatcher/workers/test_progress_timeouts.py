"""Who stands still, on a clock that the test turns."""

from collections.abc import Collection
from typing import Literal

import pytest

from hpo_service.dispatcher.workers.progress_timeouts import Liveness, Patience, Standstill
from hpo_service.executors.base import JobEnded, SliceEnded, SliceProgress, WorkerGone, WorkerReady
from trainer.spec import JobResult, Outcome, Progress, Ready, SliceResult

Token = tuple[int, int]
A, B = (1, 1), (2, 1)
PATIENCE = Patience(
    floor_seconds=10.0, step_multiple=4.0, start_seconds=100.0, evaluation_seconds=50.0, job_seconds=200.0
)


class Watch:
    """Liveness with workers `w` and `v`, looked at every half second."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.liveness = Liveness(PATIENCE, lambda: self.seconds)
        self.slices: dict[str, Collection[Token]] = {"w": [A]}
        self.busy: list[str] = []

    def look(self) -> list[Standstill]:
        self.liveness.hear([])
        return self.liveness.look(self.slices, self.busy)

    def say(
        self,
        token: Token,
        phase: Literal["starting", "training", "evaluating"] = "training",
        slowest: float = 0.1,
        worker: str = "w",
    ) -> None:
        progress = Progress(
            slice_id=token[0],
            attempt=token[1],
            phase=phase,
            examples_seen=24,
            step=3,
            slowest_step_seconds=slowest,
            train_loss=None,
            tokens_per_second=1.0,
            memory_bytes=1,
        )
        self.liveness.hear([SliceProgress(worker=worker, progress=progress)])

    def until_found(self, at_most: float = 1000.0) -> float:
        """Seconds until a worker is found to stand still."""
        began = self.seconds
        while not (found := self.look()):
            self.seconds += 0.5
            assert self.seconds - began < at_most
        self.found = found
        return self.seconds - began

    def passes(self, seconds: float) -> None:
        """Time in which nobody stands still."""
        end = self.seconds + seconds
        while self.seconds < end:
            self.seconds += 0.5
            assert self.look() == []


@pytest.fixture
def watch() -> Watch:
    watch = Watch()
    assert watch.look() == []
    return watch


def test_a_slice_that_trains_has_the_floor_or_a_multiple_of_its_slowest_step(watch: Watch) -> None:
    watch.say(A)
    assert watch.until_found() == pytest.approx(10, abs=1)
    assert "worker w made no progress for 10 s training slice 1 (limit 10 s)" in watch.found[0].reason
    watch.say(A, slowest=5.0)
    assert watch.until_found() == pytest.approx(20, abs=1)


@pytest.mark.parametrize(("phase", "seconds"), [("starting", 100), ("evaluating", 50)])
def test_start_and_evaluation_have_limits_of_their_own(
    watch: Watch, phase: Literal["starting", "evaluating"], seconds: float
) -> None:
    watch.say(A, phase)
    assert watch.until_found() == pytest.approx(seconds, abs=1)


def test_a_worker_that_does_not_even_begin_has_the_floor(watch: Watch) -> None:
    assert watch.until_found() == pytest.approx(10, abs=1)
    assert "before it began slice 1" in watch.found[0].reason


def test_a_slice_waits_while_its_neighbours_are_heard(watch: Watch) -> None:
    watch.slices = {"w": [A, B]}
    watch.say(A)
    for _ in range(10):
        watch.passes(5)
        watch.say(B, "starting")
    watch.say(B)
    assert watch.until_found() == pytest.approx(10, abs=1)


def test_a_queued_slice_waits_for_the_one_that_runs(watch: Watch) -> None:
    watch.slices = {"w": [A, B]}
    watch.say(A, "evaluating")
    watch.passes(45)
    watch.liveness.hear([SliceEnded(worker="w", result=result(A))])
    watch.slices = {"w": [B]}
    assert watch.until_found() == pytest.approx(10, abs=1)


def test_workers_are_judged_apart(watch: Watch) -> None:
    watch.slices = {"w": [A], "v": [B]}
    watch.say(A)
    for _ in range(3):
        watch.say(B, worker="v")
        watch.passes(3)
    watch.say(B, worker="v")
    assert watch.until_found() == pytest.approx(1, abs=1)
    assert [still.worker for still in watch.found] == ["w"]


def test_time_in_which_this_process_stood_still_does_not_count(watch: Watch) -> None:
    watch.say(A)
    watch.passes(5)
    watch.seconds += 3600
    assert watch.look() == []
    watch.passes(2)
    assert watch.until_found() == pytest.approx(1, abs=1)


def test_where_nobody_says_anything_no_worker_is_to_blame_at_first(watch: Watch) -> None:
    watch.slices = {"w": [A], "v": [B]}
    watch.say(A)
    watch.say(B, worker="v")
    watch.passes(90)
    watch.say(B, worker="v")
    assert watch.until_found() < 1
    assert [still.worker for still in watch.found] == ["w"]
    assert watch.until_found() == pytest.approx(100, abs=1)


def test_an_idle_worker_is_not_judged_and_begins_anew(watch: Watch) -> None:
    watch.say(A)
    watch.slices = {}
    watch.passes(60)
    watch.slices = {"w": [A]}
    assert watch.until_found() == pytest.approx(10, abs=1)


def test_a_job_has_a_limit_and_none_beside_slices(watch: Watch) -> None:
    watch.slices, watch.busy = {}, ["w"]
    assert watch.until_found() == pytest.approx(200, abs=1)
    assert "on a job" in watch.found[0].reason
    job = JobResult(job_id=9, attempt=1, outcome=Outcome.DONE, report={})
    watch.liveness.hear([JobEnded(worker="w", result=job)])
    watch.slices = {"w": [A]}
    watch.say(A)
    assert watch.until_found() == pytest.approx(10, abs=1)


def test_an_attempt_of_an_earlier_dispatcher_may_be_anywhere(watch: Watch) -> None:
    watch.liveness.adopt([A])
    watch.passes(95)
    watch.say(A)
    assert watch.until_found() == pytest.approx(10, abs=1)


def test_what_was_heard_of_an_attempt_is_evidence(watch: Watch) -> None:
    assert not watch.liveness.has_begun(A)
    assert watch.liveness.last_words(A) == "nothing was heard of the slice"
    watch.say(A)
    gone = WorkerGone(worker="w", reason="it died")
    ready = WorkerReady(worker="v", ready=Ready(pid=1, device="d", software={}))
    watch.liveness.hear([gone, ready])
    assert watch.liveness.has_begun(A)
    assert watch.liveness.last_words(A) == "last heard of training at 24 examples (step 3)"
    watch.liveness.forget([A])
    assert not watch.liveness.has_begun(A)


def result(token: Token) -> SliceResult:
    return SliceResult(slice_id=token[0], attempt=token[1], outcome=Outcome.PREEMPTED, examples_seen=0)
