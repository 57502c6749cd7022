"""Which workers a cluster should have."""

import pytest

from hpo_service.executors.base import Wanted
from hpo_service.executors.ray.worker_plan import Plan, Standing, plan, sizes


@pytest.mark.parametrize(
    ("wanted", "devices", "slots", "expected"),
    [
        ([], 4, 1, []),
        ([Wanted(slices=2)], 4, 1, [1, 1]),
        ([Wanted(slices=9)], 4, 1, [1, 1, 1, 1]),
        ([Wanted(slices=5)], 4, 2, [1, 1, 1]),
        ([Wanted(ranks=2, slices=1), Wanted(slices=9)], 4, 1, [2, 1, 1]),
        ([Wanted(ranks=2, slices=9), Wanted(slices=1)], 5, 4, [2, 1, 2]),
        ([Wanted(slices=9), Wanted(ranks=4)], 4, 1, [1, 1, 1, 1]),
        ([Wanted(ranks=8)], 4, 1, []),
        ([Wanted(slices=1), Wanted(slices=2)], 8, 1, [1, 1, 1]),
    ],
)
def test_sizes_follow_what_is_wanted(wanted: list[Wanted], devices: int, slots: int, expected: list[int]) -> None:
    assert sizes(wanted, devices, slots) == expected


def steps(wanted: list[Wanted], devices: int, *workers: Standing) -> Plan:
    return plan(wanted, devices, workers, slots=1, keep_idle_seconds=60)


def test_workers_start_where_there_is_room() -> None:
    assert steps([Wanted(slices=2)], 3) == Plan(start=(1, 1))
    assert steps([Wanted(slices=2)], 3, Standing(worker="a", ranks=1)) == Plan(start=(1,))
    assert steps([Wanted(slices=2)], 0) == Plan()


def test_nothing_wanted_ends_in_no_worker_but_not_at_once() -> None:
    fresh, old = Standing(worker="a", ranks=1, idle_seconds=59), Standing(worker="b", ranks=1, idle_seconds=60)
    assert steps([], 2, fresh, old) == Plan(let_go=("b",))


def test_a_pending_worker_that_nobody_wants_is_taken_back_at_once() -> None:
    assert steps([], 2, Standing(worker="a", ranks=1, placed=False)) == Plan(let_go=("a",))


def test_another_size_makes_workers_leave_the_idle_ones_of_other_bases_first() -> None:
    workers = [
        Standing(worker="busy", ranks=1, busy=True, base="x"),
        Standing(worker="same", ranks=1, idle_seconds=9, base="wanted"),
        Standing(worker="long", ranks=1, idle_seconds=8, base="x"),
        Standing(worker="short", ranks=1, idle_seconds=1, base="x"),
    ]
    assert steps([Wanted(ranks=2, base="wanted")], 4, *workers) == Plan(let_go=("long", "short"))
    assert steps([Wanted(ranks=2, base="wanted")], 4, *workers[:2]) == Plan(start=(2,))
    assert steps([Wanted(ranks=4, base="wanted")], 4, *workers).let_go == ("long", "short", "same", "busy")
