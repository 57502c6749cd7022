"""Every pair of features that may meet, lived with the real worker through `hpo up`."""

import pytest

from tests.journeys.conftest import journeys
from tests.journeys.rows import Row, covering_rows
from tests.journeys.services import PAST, Journeys
from tests.journeys.story import Story

__all__ = ["journeys"]

ROWS = covering_rows()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_everything_says_the_same_and_is_what_was_trained(row: Row, journeys: Journeys) -> None:
    service, place = journeys.at(row.slots)
    name = f"row-{ROWS.index(row)}"
    assert Story(row, name, service, place, journeys.folder / name, PAST).live() == []
