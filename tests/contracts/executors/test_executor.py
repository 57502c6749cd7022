"""What every executor promises, whatever it runs on. The real ones run the real worker on the real small model."""

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import mkdtemp

import pytest

from hpo_service.core.settings import Settings
from hpo_service.core.study_rules import Cause
from hpo_service.executors.base import ExecutorEvent, Wanted, WorkerGone, WorkerReady
from tests.executor_rigs import FakeRig, LocalRig, RayRig, Rig
from tests.slices import TIMEOUT_SECONDS, a_job, a_slice, ended, ended_jobs, long_slice, submit, wait_for, wait_ready
from trainer.spec import Outcome, QualityReport


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    path = Path(mkdtemp(prefix="executor-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module", params=["fake", "local", "ray"])
def rig(request: pytest.FixtureRequest, folder: Path) -> Iterator[Rig]:
    make: dict[str, Callable[[], Rig]] = {
        "fake": FakeRig, "local": lambda: LocalRig(folder), "ray": lambda: RayRig(folder)
    }  # fmt: skip
    rig = make[request.param]()
    rig.executor.start()
    rig.executor.demand([Wanted(slices=2)])
    ready = [event for event in wait_ready(rig.executor, 2) if isinstance(event, WorkerReady)]
    assert all(event.node and len(event.places) == 1 for event in ready)
    assert len({place for event in ready for place in event.places}) == 2
    yield rig
    rig.close()
    rig.executor.wake()


@pytest.fixture(autouse=True)
def both_workers_are_ready(rig: Rig) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while rig.executor.free_slots(prefetch=False) < 2 and time.monotonic() < deadline:
        rig.executor.poll(0.05)
    assert rig.executor.free_slots(prefetch=False) == 2


def hold(rig: Rig, held: bool) -> None:
    if isinstance(rig, FakeRig):
        rig.fake.hold = held
        rig.fake.hold_jobs = held


def test_a_slice_ends_once_with_its_token(rig: Rig) -> None:
    work = a_slice()
    submit(rig.executor, work)
    seen = wait_for(rig.executor, lambda seen: bool(ended(seen)))
    (result,) = ended(seen)
    assert (result.slice_id, result.attempt) == work.token
    assert result.outcome is Outcome.DONE
    assert result.eval_loss is not None
    assert result.snapshot is not None
    assert result.snapshot.path.startswith(work.snapshot_dir)
    assert not ended(list(rig.executor.poll(0.2)))


def test_slots_are_taken_and_given_back(rig: Rig) -> None:
    hold(rig, True)
    first, second = long_slice(1), long_slice(2)
    assert submit(rig.executor, first) != submit(rig.executor, second)
    assert rig.executor.free_slots(prefetch=False) == 0
    assert rig.executor.choose(a_slice(), prefetch=False) is None
    assert rig.executor.free_slots(prefetch=True) == 2
    for work in (first, second):
        rig.executor.stop(work.token)
    wait_for(rig.executor, lambda seen: len(ended(seen)) == 2)
    assert rig.executor.free_slots(prefetch=False) == 2
    hold(rig, False)


def test_a_stopped_slice_is_preempted_with_what_it_reached(rig: Rig) -> None:
    hold(rig, True)
    work = long_slice()
    submit(rig.executor, work)
    rig.executor.stop(work.token)
    (result,) = ended(wait_for(rig.executor, lambda seen: bool(ended(seen))))
    assert result.outcome is Outcome.PREEMPTED
    hold(rig, False)


def test_a_queued_slice_is_preempted_without_having_begun(rig: Rig) -> None:
    hold(rig, True)
    running = [long_slice(1), long_slice(2)]
    for work in running:
        submit(rig.executor, work)
    queued = a_slice(trial=3)
    worker = rig.executor.choose(queued, prefetch=True)
    assert worker is not None
    rig.executor.submit(queued, worker)
    rig.executor.stop(queued.token)
    (result,) = ended(wait_for(rig.executor, lambda seen: bool(ended(seen))))
    assert (result.slice_id, result.outcome, result.examples_seen) == (queued.slice_id, Outcome.PREEMPTED, 0)
    for work in running:
        rig.executor.stop(work.token)
    wait_for(rig.executor, lambda seen: len(ended(seen)) == 2)
    hold(rig, False)


def test_a_job_ends_once_with_its_report_and_takes_no_slot(rig: Rig) -> None:
    hold(rig, True)
    slices = [long_slice(1), long_slice(2)]
    for work in slices:
        submit(rig.executor, work)
    job = a_job()
    submit(rig.executor, job)
    if isinstance(rig, FakeRig):
        rig.fake.hold_jobs = False
    (result,) = ended_jobs(wait_for(rig.executor, lambda seen: bool(ended_jobs(seen))))
    assert (result.job_id, result.attempt) == job.token
    assert result.outcome is Outcome.DONE
    assert QualityReport.model_validate(result.report).train_rows > 0
    for work in slices:
        rig.executor.stop(work.token)
    seen = wait_for(rig.executor, lambda seen: len(ended(seen)) == 2)
    assert {outcome.outcome for outcome in ended(seen)} == {Outcome.PREEMPTED}
    assert not ended_jobs(seen)
    hold(rig, False)


def test_a_worker_does_one_job_at_a_time_and_a_stopped_one_is_preempted(rig: Rig) -> None:
    hold(rig, True)
    jobs = [a_job(), a_job()]
    assert len({submit(rig.executor, job) for job in jobs}) == 2
    assert rig.executor.choose(a_job(), prefetch=True) is None
    assert rig.executor.free_slots(prefetch=False) == 2
    for job in jobs:
        rig.executor.stop(job.token)
    results = ended_jobs(wait_for(rig.executor, lambda seen: len(ended_jobs(seen)) == 2))
    assert {result.outcome for result in results} == {Outcome.PREEMPTED}
    assert rig.executor.choose(a_job(), prefetch=True) is not None
    hold(rig, False)


def test_workers_that_are_left_out_get_no_work_even_where_the_trial_was(rig: Rig) -> None:
    work = a_slice(trial=9)
    home = submit(rig.executor, work)
    wait_for(rig.executor, lambda seen: bool(ended(seen)))
    for more in (work, work.model_copy(update={"alone": True}), a_job()):
        other = rig.executor.choose(more, prefetch=True, without=(home,))
        assert other not in (None, home)
        assert rig.executor.choose(more, prefetch=True, without=(home, str(other))) is None


def test_the_job_of_a_dead_worker_ends_with_it(rig: Rig) -> None:
    hold(rig, True)
    worker = submit(rig.executor, a_job())
    rig.kill(worker)
    seen = wait_for(
        rig.executor,
        lambda seen: (
            any(isinstance(event, WorkerGone) for event in seen)
            and any(isinstance(event, WorkerReady) for event in seen)
        ),
    )
    assert [event.worker for event in seen if isinstance(event, WorkerGone)] == [worker]
    assert ended_jobs(seen) == []
    hold(rig, False)


def test_stopping_an_unknown_token_is_ignored(rig: Rig) -> None:
    rig.executor.stop((999_999, 1))
    assert list(rig.executor.poll(0.1)) == []


def test_a_dead_worker_is_reported_and_replaced(rig: Rig) -> None:
    hold(rig, True)
    work = long_slice()
    worker = submit(rig.executor, work)
    rig.kill(worker)
    seen = wait_for(
        rig.executor,
        lambda seen: (
            any(isinstance(event, WorkerGone) for event in seen)
            and any(isinstance(event, WorkerReady) for event in seen)
        ),
    )
    assert [event.worker for event in seen if isinstance(event, WorkerGone)] == [worker]
    assert ended(seen) == []
    assert worker not in [event.worker for event in seen if isinstance(event, WorkerReady)]
    hold(rig, False)


def test_a_killed_worker_says_why_and_is_replaced(rig: Rig) -> None:
    hold(rig, True)
    worker = submit(rig.executor, long_slice())
    rig.executor.kill(worker, "it stood still", Cause.NO_PROGRESS)
    seen = wait_for(rig.executor, lambda seen: bool(gone(seen) and ready(seen)))
    (event,) = gone(seen)
    assert (event.worker, event.reason, event.cause, event.replaced) == (
        worker,
        "it stood still",
        Cause.NO_PROGRESS,
        False,
    )
    assert ready(seen)[0].places == event.places
    assert ended(seen) == []
    rig.executor.kill(worker, "again", Cause.NO_PROGRESS)
    hold(rig, False)


def test_a_drained_worker_takes_nothing_more_and_is_replaced_once_it_is_idle(rig: Rig) -> None:
    hold(rig, True)
    work = long_slice()
    worker = submit(rig.executor, work)
    rig.executor.drain(worker)
    assert rig.executor.free_slots(prefetch=True) == 2
    assert rig.executor.choose(a_slice(trial=9), prefetch=True) != worker
    assert not gone(rig.executor.poll(0.2))
    rig.executor.stop(work.token)
    seen = wait_for(rig.executor, lambda seen: bool(gone(seen) and ready(seen)))
    (result,), (event,) = ended(seen), gone(seen)
    assert result.outcome is Outcome.PREEMPTED
    assert (event.worker, event.cause, event.replaced) == (worker, Cause.WORKER_ENDED, True)
    assert ready(seen)[0].places == event.places
    hold(rig, False)


def test_excluded_places_have_no_worker_until_they_are_included(rig: Rig) -> None:
    hold(rig, True)
    work = long_slice()
    worker = submit(rig.executor, work)
    rig.executor.kill(worker, "to learn its place", Cause.WORKER_DIED)
    (event,) = ready(wait_for(rig.executor, lambda seen: bool(ready(seen))))
    rig.executor.exclude(event.places)
    (end,) = gone(wait_for(rig.executor, lambda seen: bool(gone(seen))))
    assert (end.worker, end.places, end.cause) == (event.worker, event.places, Cause.WORKER_ENDED)
    assert list(rig.executor.poll(1.0)) == []
    assert rig.executor.free_slots(prefetch=False) == 1
    rig.executor.include(event.places)
    (back,) = ready(wait_for(rig.executor, lambda seen: bool(ready(seen))))
    assert back.places == event.places
    hold(rig, False)


def test_a_slice_that_is_to_be_alone_has_a_worker_for_itself(rig: Rig) -> None:
    hold(rig, True)
    alone = long_slice(1).model_copy(update={"alone": True})
    worker = submit(rig.executor, alone)
    assert rig.executor.free_slots(prefetch=True) == 2
    other = long_slice(2)
    assert submit(rig.executor, other) != worker
    assert rig.executor.choose(long_slice(3).model_copy(update={"alone": True}), prefetch=True) is None
    assert rig.executor.choose(long_slice(1), prefetch=True) != worker
    for work in (alone, other):
        rig.executor.stop(work.token)
    wait_for(rig.executor, lambda seen: len(ended(seen)) == 2)
    hold(rig, False)


def gone(seen: Sequence[ExecutorEvent]) -> list[WorkerGone]:
    return [event for event in seen if isinstance(event, WorkerGone)]


def ready(seen: Sequence[ExecutorEvent]) -> list[WorkerReady]:
    return [event for event in seen if isinstance(event, WorkerReady)]


def test_wake_ends_the_next_wait(rig: Rig) -> None:
    rig.executor.wake()
    began = time.monotonic()
    rig.executor.poll(10.0)
    assert time.monotonic() - began < 5.0


def test_wake_on_another_thread_ends_a_wait(rig: Rig) -> None:
    list(rig.executor.poll(0.0))
    waker = threading.Timer(0.2, rig.executor.wake)
    waker.start()
    began = time.monotonic()
    rig.executor.poll(10.0)
    assert 0.1 < time.monotonic() - began < 5.0
    waker.join()


def test_a_signal_that_is_handled_as_a_wait_ends_does_not_lengthen_it(rig: Rig) -> None:
    list(rig.executor.poll(0.0))
    before = signal.signal(signal.SIGALRM, lambda *_: time.sleep(0.4))
    rescue = threading.Timer(15.0, rig.executor.wake)
    rescue.start()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        began = time.monotonic()
        rig.executor.poll(0.2)
        assert 0.1 < time.monotonic() - began < 10.0
    finally:
        rescue.cancel()
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def test_threads_that_wake_all_the_time_disturb_nothing(rig: Rig) -> None:
    over = threading.Event()

    def wake_often() -> None:
        while not over.wait(0.001):
            rig.executor.wake()

    threads = [threading.Thread(target=wake_often) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        test_a_slice_ends_once_with_its_token(rig)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    list(rig.executor.poll(0.0))


def test_the_setting_for_more_devices_is_one(rig: Rig) -> None:
    known = {f"HPO_{name}".upper() for name in Settings.model_fields}
    assert isinstance(rig, FakeRig) or rig.executor.devices_setting in known


def test_devices_go_to_groups_that_are_wanted_and_come_back(rig: Rig) -> None:
    """Last, since it replaces the workers of all other tests."""
    assert rig.executor.largest_group == rig.executor.devices_present == 2
    assert rig.executor.free_slots(prefetch=True, ranks=2) == 0
    assert rig.executor.choose(a_slice(ranks=2), prefetch=True) is None
    hold(rig, True)
    busy = long_slice()
    submit(rig.executor, busy)
    rig.executor.demand([Wanted(ranks=2)])
    assert rig.executor.free_slots(prefetch=False, ranks=2) == 0
    rig.executor.stop(busy.token)
    (result,) = ended(wait_for(rig.executor, lambda seen: bool(ended(seen))))
    assert result.outcome is Outcome.PREEMPTED
    hold(rig, False)
    until_free(rig, ranks=2, demand=Wanted(ranks=2))
    assert rig.executor.free_slots(prefetch=False) == 0
    submit(rig.executor, a_slice(ranks=2))
    (result,) = ended(wait_for(rig.executor, lambda seen: bool(ended(seen))))
    assert result.outcome is Outcome.DONE, result.message
    until_free(rig, ranks=1, demand=Wanted(slices=2))
    assert rig.executor.free_slots(prefetch=False, ranks=2) == 0


def until_free(rig: Rig, *, ranks: int, demand: Wanted) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while rig.executor.free_slots(prefetch=False, ranks=ranks) < 2 // ranks:
        assert time.monotonic() < deadline
        rig.executor.demand([demand])
        rig.executor.poll(0.05)
