"""Which trials of a large study a report draws."""

from hpo_service.services.reports.read import MOST_TRIALS, chosen
from hpo_service.storage.queries.reports import TrialPoint


def point(number: int, state: str = "PRUNED", examples: int = 40, loss: float | None = 3.0) -> TrialPoint:
    return TrialPoint(number=number, state=state, paused=False, examples=examples, loss=loss)


def test_a_small_study_is_drawn_whole() -> None:
    assert chosen([point(number) for number in range(MOST_TRIALS)], {3}) == set(range(MOST_TRIALS))


def test_of_a_large_one_the_leaders_and_an_even_sample() -> None:
    points = [point(number) for number in range(10_000)]
    points[77] = point(77, "COMPLETE", 200, 1.0)
    points[4321] = point(4321, "RUNNING", 120, 2.0)
    points[500] = point(500, "FAIL", 199, 0.5)
    found = chosen(points, {9_999})
    assert len(found) == MOST_TRIALS
    assert {0, 77, 4321, 9_999} <= found
    assert max(b - a for a, b in zip(sorted(found), sorted(found)[1:], strict=False)) < 250
