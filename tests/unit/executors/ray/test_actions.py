"""What other threads hand over, and what is due."""

import threading
import time

from hpo_service.executors.ray.actions import Actions


def test_what_was_posted_is_done_in_order_on_the_thread_that_works_it_off() -> None:
    actions, done = Actions(), list[tuple[int, int]]()
    for number in (1, 2):
        poster = threading.Thread(
            target=actions.post, args=[lambda number=number: done.append((number, threading.get_ident()))]
        )
        poster.start()
        poster.join()
    assert actions.work_off(0)
    assert done == [(1, threading.get_ident()), (2, threading.get_ident())]


def test_what_is_due_ends_a_wait_and_comes_in_time() -> None:
    actions, done = Actions(), list[str]()
    actions.later(0.15, lambda: done.append("second"))
    actions.later(0.05, lambda: done.append("first"))
    began = time.monotonic()
    while len(done) < 2:
        assert actions.work_off(20.0)
    assert done == ["first", "second"]
    assert 0.15 <= time.monotonic() - began < 10


def test_wake_ends_a_wait_even_if_it_came_before() -> None:
    actions = Actions()
    actions.wake()
    assert not actions.work_off(0)
    threading.Timer(0.1, actions.wake).start()
    assert not actions.work_off(20.0)
