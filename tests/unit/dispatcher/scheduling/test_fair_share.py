"""Free slots: strict between priorities, even by use within one."""

import pytest

from hpo_service.dispatcher.scheduling.fair_share import Usages, Want, allot
from hpo_service.dispatcher.scheduling.quotas import Room


def test_a_higher_priority_gets_all_that_it_can_use() -> None:
    wants = [Want(study_id=1, priority=50, most=9), Want(study_id=2, priority=60, most=3)]
    assert allot(wants, 5) == {1: 2, 2: 3}
    assert allot(wants, 2) == {1: 0, 2: 2}


def test_equals_share_evenly_whoever_was_first() -> None:
    wants = [Want(study_id=1, priority=50, most=9, running=4), Want(study_id=2, priority=50, most=9)]
    assert allot(wants, 6) == {1: 1, 2: 5}


def test_who_used_more_lately_waits() -> None:
    wants = [
        Want(study_id=1, priority=50, most=9, used_seconds=100.0, slice_seconds=20.0),
        Want(study_id=2, priority=50, most=9, used_seconds=40.0, slice_seconds=20.0),
    ]
    assert allot(wants, 3) == {1: 0, 2: 3}
    assert allot(wants, 5) == {1: 1, 2: 4}


def test_nobody_gets_more_than_it_wants() -> None:
    assert allot([Want(study_id=1, priority=50, most=0), Want(study_id=2, priority=0, most=1)], 5) == {1: 0, 2: 1}


def test_what_was_used_long_ago_fades() -> None:
    usages = Usages()
    assert usages.lately(1, 1000.0, 0.0) == 0.0
    assert usages.lately(1, 1600.0, 1.0) == pytest.approx(600.0)
    assert usages.lately(1, 1600.0, 601.0) == pytest.approx(300.0)


def test_who_may_not_queue_gets_no_slot_behind_others() -> None:
    wants = [Want(study_id=1, priority=9, most=1), Want(study_id=2, priority=5, most=3, prefetch=False)]
    assert allot(wants, 4, queued=2) == {1: 1, 2: 1}
    assert allot(wants, 2, queued=1) == {1: 1, 2: 0}


def test_a_project_without_room_leaves_its_slots_to_others() -> None:
    wants = [
        Want(study_id=1, project_id=7, priority=90, most=9),
        Want(study_id=2, project_id=7, priority=90, most=9),
        Want(study_id=3, project_id=8, priority=50, most=9),
    ]
    room = Room(devices={7: 3})

    def take(want: Want) -> bool:
        fits = room.fits(want.project_id, want.ranks, want.slice_seconds)
        room.take(want.project_id, want.ranks, want.slice_seconds)
        return fits

    assert allot(wants, 6, take=take) == {1: 2, 2: 1, 3: 3}


def test_room_shrinks_with_what_is_handed_out() -> None:
    room = Room(devices={7: 4}, seconds={7: 10.0})
    assert room.fits(8, 1000, 1e9)
    assert (room.fits(7, 4, 10.0), room.fits(7, 5, 0.0), room.fits(7, 1, 10.1)) == (True, False, False)
    copy = room.copy()
    room.take(7, 2, 10.0)
    assert (room.fits(7, 2, 0.0), copy.fits(7, 2, 0.0)) == (False, True)
