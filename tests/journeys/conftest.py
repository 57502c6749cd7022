"""One service for all rows."""

from collections.abc import Iterator

import pytest

from tests.journeys.services import Journeys


@pytest.fixture(scope="session")
def journeys() -> Iterator[Journeys]:
    """The service, and the folder in which stories keep their files."""
    made = Journeys()
    yield made
    made.remove()
