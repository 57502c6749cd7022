"""Which workers are quarantined, from what is reported of them."""

import pytest

from hpo_service.core.study_rules import Cause
from hpo_service.dispatcher.workers.fault_detection import Faults
from hpo_service.executors.base import ExecutorEvent, SliceEnded, WorkerGone, WorkerReady
from trainer.spec import DeviceHealth, Notice, Outcome, Ready, SliceResult, SnapshotRef, worsened

HEALTHY = DeviceHealth(uuid="GPU-1", name="H100", ecc_uncorrected_volatile=0, remapped_rows=0)
SICK = HEALTHY.model_copy(update={"ecc_uncorrected_volatile": 1})
PLACES = {"a": ("n/0",), "b": ("n/1",)}


@pytest.fixture
def faults() -> Faults:
    faults = Faults()
    faults.hear([ready("a"), ready("b")])
    return faults


def ready(worker: str) -> WorkerReady:
    ready = Ready(pid=1, device="H100", software={})
    return WorkerReady(worker=worker, ready=ready, node="n", places=PLACES[worker[0]])


def gone(worker: str, cause: Cause = Cause.WORKER_DIED) -> WorkerGone:
    return WorkerGone(worker=worker, reason=f"{worker} ended", cause=cause, places=PLACES[worker[0]])


def ended(worker: str, outcome: Outcome, slice_id: int, *notices: Notice) -> SliceEnded:
    snapshot = SnapshotRef(path="s", digest="0" * 64, examples_seen=1)
    done = {"eval_loss": 1.0, "snapshot": snapshot} if outcome is Outcome.DONE else {}
    result = SliceResult(slice_id=slice_id, attempt=1, outcome=outcome, examples_seen=1, notices=notices, **done)
    return SliceEnded(worker=worker, result=result)


def broken(worker: str, *slice_ids: int) -> list[ExecutorEvent]:
    return [ended(worker, Outcome.INFRA_ERROR, slice_id) for slice_id in slice_ids]


@pytest.mark.parametrize(
    ("now", "faulty"),
    [
        (SICK, True),
        (HEALTHY.model_copy(update={"remapped_rows": 1}), False),
        (HEALTHY.model_copy(update={"remapping_failed": True}), True),
        (HEALTHY.model_copy(update={"lost": True}), True),
        (HEALTHY.model_copy(update={"xids": (79,)}), True),
        (HEALTHY.model_copy(update={"xids": (48, 45)}), True),
        (HEALTHY.model_copy(update={"xids": (31, 43)}), False),
        (HEALTHY.model_copy(update={"temperature_celsius": 95.0, "slowdown_celsius": 90.0}), False),
        (HEALTHY.model_copy(update={"throttling": ("hw_slowdown",)}), False),
    ],
)
def test_a_device_that_is_faulty_and_not_only_hot(faults: Faults, now: DeviceHealth, faulty: bool) -> None:
    notice = worsened(HEALTHY, now)
    assert notice is not None
    faults.hear([ended("a", Outcome.DONE, 1, notice)])
    assert [(fault.worker, fault.places, fault.broken) for fault in faults.found] == [("a", ("n/0",), True)] * faulty


def test_three_broken_slices_in_a_row_while_others_work(faults: Faults) -> None:
    faults.hear([*broken("a", 1, 2), ended("b", Outcome.DONE, 9)])
    assert not faults.found
    faults.hear(broken("a", 3))
    (fault,) = faults.found
    assert (fault.worker, fault.places, fault.broken) == ("a", ("n/0",), False)


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(broken("a", 1, 2, 3, 4), id="nobody else works: it may be the disk of all"),
        pytest.param([ended("b", Outcome.DONE, 9), *broken("a", 1, 2, 3)], id="the other one worked before"),
        pytest.param([*broken("a", 1, 1, 1), ended("b", Outcome.DONE, 9), *broken("a", 1)], id="one slice, four times"),
        pytest.param(
            [*broken("a", 1, 2), ended("b", Outcome.DONE, 9), ended("a", Outcome.DONE, 4), *broken("a", 5)],
            id="one worked in between",
        ),
    ],
)
def test_no_fault(faults: Faults, events: list[ExecutorEvent]) -> None:
    faults.hear(events)
    assert not faults.found


def test_a_group_that_ends_with_every_broken_slice_is_counted_by_its_places(faults: Faults) -> None:
    for number in range(3):
        faults.hear([*broken("a", number), ended("b", Outcome.DONE, 10 + number), gone("a"), ready("a")])
    assert [fault.places for fault in faults.found] == [("n/0",)]


class Clock:
    """Turned by the test."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lone(clock: Clock) -> Faults:
    """There is one worker only."""
    faults = Faults(clock=clock)
    faults.hear([ready("a")])
    return faults


def test_the_only_worker_rests_longer_and_longer_and_is_quarantined_in_the_end(lone: Faults, clock: Clock) -> None:
    for slice_id, rest_seconds in ((1, 5), (1, 10), (1, 20), (2, 40)):
        assert not lone.resting
        lone.hear(broken("a", slice_id))
        clock.seconds += rest_seconds - 1
        assert lone.resting
        clock.seconds += 1
        assert not lone.found
    lone.hear(broken("a", 2))
    (fault,) = lone.found
    assert fault.places == ("n/0",)
    assert "5 attempts in a row broke on it, the only worker" in fault.reason
    assert not lone.resting


@pytest.mark.parametrize(
    "between",
    [
        pytest.param([ended("a", Outcome.DONE, 3)], id="one worked in between"),
        pytest.param([ready("b")], id="there is another worker now"),
    ],
)
def test_the_only_worker_begins_anew(lone: Faults, between: list[ExecutorEvent]) -> None:
    lone.hear([*broken("a", 1, 1, 2, 2), *between])
    assert not lone.resting
    lone.hear(broken("a", 2))
    assert not lone.found


def test_one_slice_alone_says_nothing_about_its_worker(lone: Faults, clock: Clock) -> None:
    lone.hear(broken("a", *[1] * 9))
    assert not lone.found
    clock.seconds += 40
    assert not lone.resting


def test_places_where_no_worker_gets_ready(faults: Faults) -> None:
    faults.hear([gone("a", Cause.NO_PROGRESS)])
    faults.hear([gone(f"a{number}") for number in range(4)])
    assert not faults.found
    faults.hear([gone("a4", Cause.WORKER_ENDED), gone("a5")])
    (fault,) = faults.found
    assert fault.places == ("n/0",)
    assert "5 workers in a row ended before they were ready, the last one: a5 ended" in fault.reason


def test_a_worker_that_gets_ready_ends_the_row(faults: Faults) -> None:
    faults.hear([gone("a")])
    for _ in range(3):
        faults.hear([*(gone(f"a{number}") for number in range(4)), ready("a"), gone("a")])
    assert not faults.found


def test_what_was_released_is_forgiven(faults: Faults) -> None:
    faults.hear([*broken("a", 1, 2), ended("b", Outcome.DONE, 9)])
    faults.forgive(["n/0"])
    faults.hear(broken("a", 3))
    assert not faults.found
