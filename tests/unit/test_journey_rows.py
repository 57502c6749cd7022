"""The rows of the journeys cover every two features that may meet, and hold nothing that the service refuses."""

from dataclasses import asdict
from itertools import combinations
from typing import Any

from covertable.evaluate import evaluate

from tests.journeys.rows import CONSTRAINTS, FEATURES, FIXED, covering_rows


def allowed(row: dict[str, Any]) -> bool:
    return all(evaluate(constraint, row) is not False for constraint in CONSTRAINTS)


def test_every_pair_that_may_meet_does() -> None:
    rows = [asdict(row) for row in covering_rows()]
    met = {(one, row[one], other, row[other]) for row in rows for one, other in combinations(FEATURES, 2)}
    wanted = {
        (one, value, other, theirs)
        for one, other in combinations(FEATURES, 2)
        for value in FEATURES[one]
        for theirs in FEATURES[other]
        if allowed({one: value, other: theirs})
    }
    # Only freeze_thaw learns from others, and only it has a sampler of its own: two rules exclude these together.
    impossible = {pair for pair in wanted if pair[::2] == ("sampler", "warm_start") and "own" not in pair}
    assert wanted - met == {pair for pair in impossible if pair[3] != "off"}
    assert all(map(allowed, rows))


def test_the_fixed_rows_are_rows_that_the_service_takes() -> None:
    assert all(allowed(asdict(row)) for row in FIXED)
