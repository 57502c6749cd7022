"""The state that a study will have when its intents are fulfilled."""

import pytest

from hpo_service.core.errors import Conflict
from hpo_service.core.messages import IntentKind
from hpo_service.core.study_rules import StudyState
from hpo_service.services.studies.pending_state import expected_state, next_state, require_open


@pytest.mark.parametrize("current", StudyState)
@pytest.mark.parametrize("kind", [IntentKind.PAUSE, IntentKind.RESUME, IntentKind.STOP, IntentKind.CANCEL])
def test_no_intent_leads_from_an_end(current: StudyState, kind: IntentKind) -> None:
    if current in ("completed", "failed", "cancelled"):
        with pytest.raises(Conflict):
            next_state("s", current, kind)


def test_states_are_foreseen() -> None:
    running = StudyState.RUNNING
    assert expected_state("s", running, ["pause", "resume", "extend", "enqueue"]) is running
    assert expected_state("s", running, ["resume", "cancel", "pause"]) is StudyState.CANCELLING
    assert expected_state("s", StudyState.QUEUED, ["create", "pause"]) is StudyState.PAUSED
    assert expected_state("s", StudyState.QUEUED, ["stop"]) is StudyState.COMPLETED
    assert expected_state("s", StudyState.PAUSED, ["stop"]) is StudyState.STOPPING
    require_open("s", StudyState.PAUSED, "grow")
    with pytest.raises(Conflict, match="clone"):
        require_open("s", StudyState.STOPPING, "grow")
