"""Four users' stories with everything that was wrong once; `tests/full/test_journeys.py` lives all pairs."""

import pytest

from tests.journeys.rows import FIXED, Row
from tests.journeys.services import PAST, Journeys
from tests.journeys.story import Story


@pytest.mark.timeout(900)
@pytest.mark.parametrize("row", FIXED, ids=str)
def test_everything_says_the_same_and_is_what_was_trained(row: Row, journeys: Journeys) -> None:
    service, place = journeys.at(row.slots)
    name = f"fixed-{FIXED.index(row)}"
    assert Story(row, name, service, place, journeys.folder / name, PAST).live() == []
