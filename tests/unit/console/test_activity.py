"""Which events are told in the colour of a warning."""

from datetime import UTC, datetime
from typing import Any

import pytest

from hpo_service.console.activity import events_panel
from hpo_service.storage.queries.overview import RecentEvent


@pytest.mark.parametrize(
    ("payload", "words", "warns"),
    [
        ({"outcome": "preempted", "message": ""}, "trial 5 was stopped on request", False),
        ({"outcome": "lost", "message": "gone"}, "trial 5 is tried again after lost: gone", True),
    ],
)
def test_a_pause_that_was_asked_for_is_no_warning(payload: dict[str, Any], words: str, warns: bool) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    event = RecentEvent(id=1, kind="slice.retried", study="s", trial_number=5, payload=payload, created_at=now)
    page = str(events_panel([event]))
    assert words in page
    assert ("tone-warning" in page) is warns
