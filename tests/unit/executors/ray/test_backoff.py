"""Workers that keep dying start less and less often."""

import time

from hpo_service.executors.ray.backoff import Backoff


def delay_seconds(backoff: Backoff) -> float:
    """How long until the next worker may start, to half a second."""
    now = time.monotonic()
    return next(half / 2 for half in range(200) if backoff.is_over(now + half / 2))


def test_each_death_makes_the_wait_longer_up_to_a_limit() -> None:
    backoff, delays = Backoff(), []
    for _ in range(9):
        delays.append(delay_seconds(backoff))
        backoff.died(1.0)
    assert delays == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_one_that_lived_for_a_while_makes_it_short_again() -> None:
    backoff = Backoff()
    for lived_seconds in (1.0, 1.0, 1.0, 61.0):
        backoff.died(lived_seconds)
    assert delay_seconds(backoff) == 0.5
