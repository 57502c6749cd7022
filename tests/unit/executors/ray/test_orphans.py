"""When an actor to which nobody speaks ends."""

import pytest

from hpo_service.executors.ray.orphans import GRACE_SECONDS, KEEP_SECONDS, next_step


@pytest.mark.parametrize(
    ("silent_seconds", "runs", "keeps", "expected"),
    [
        (899, True, True, "wait"),
        (900, False, False, "end"),
        (900, True, False, "stop"),
        (900 + GRACE_SECONDS, True, False, "end"),
        (900, True, True, "stop"),
        (900 + GRACE_SECONDS, True, True, "wait"),
        (KEEP_SECONDS - 1, False, True, "wait"),
        (KEEP_SECONDS, False, True, "end"),
    ],
)
def test_results_are_waited_for_longer(silent_seconds: float, runs: bool, keeps: bool, expected: str) -> None:
    assert next_step(silent_seconds, 900, runs=runs, keeps=keeps) == expected


def test_the_longer_limit_is_never_the_shorter_one() -> None:
    orphan_seconds = 2 * KEEP_SECONDS
    assert next_step(KEEP_SECONDS + 1, orphan_seconds, runs=False, keeps=True) == "wait"
    assert next_step(orphan_seconds, orphan_seconds, runs=False, keeps=True) == "end"
