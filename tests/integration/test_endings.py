"""Ends that a killed dispatcher left half done, and ends asked for in a row."""

import pytest
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.messages import IntentKind
from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.executors.fake import FakeExecutor
from hpo_service.storage.tables import Study
from tests.dispatching import ask, expire_lease, loss_of, make, post_study, state_of, turn_until

Sessions = sessionmaker[Session]
ASHA: dict[str, object] = {"strategy": "asha", "deterministic": True, "seed": 3}


def post(sessions: Sessions) -> int:
    return post_study(sessions, confirm={"share": 0.6}, budget__max_examples=20_000, search=ASHA)


def dispatched(sessions: Sessions, *, confirming: bool) -> tuple[Dispatcher, FakeExecutor]:
    """A dispatcher whose worker is in the midst of a slice: of the search, or of its confirmation."""
    dispatcher, fake = make(sessions, FakeExecutor(loss_of))
    fake.hold = not confirming
    turn_until(dispatcher, lambda: bool(fake.submitted))
    if confirming:
        turn_until(dispatcher, lambda: fake.submitted[-1].trial.training.seed != 0)
    fake.hold = True
    return dispatcher, fake


@pytest.mark.parametrize("confirming", [False, True])
@pytest.mark.parametrize(
    ("kind", "meanwhile", "end"),
    [
        (IntentKind.PAUSE, "pausing", "paused"),
        (IntentKind.STOP, "stopping", "completed"),
        (IntentKind.CANCEL, "cancelling", "cancelled"),
    ],
)
def test_an_end_is_finished_after_a_kill(
    sessions: Sessions, kind: IntentKind, meanwhile: str, end: str, confirming: bool
) -> None:
    study_id = post(sessions)
    dispatcher, _ = dispatched(sessions, confirming=confirming)
    ask(sessions, study_id, kind)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == meanwhile)
    expire_lease(sessions)
    successor, _ = make(sessions, FakeExecutor(loss_of))
    turn_until(successor, lambda: state_of(sessions, study_id) == end, turns=60)


def test_a_study_that_is_stopped_before_it_began_says_so(sessions: Sessions) -> None:
    study_id = post(sessions)
    ask(sessions, study_id, IntentKind.STOP)
    dispatcher, _ = make(sessions)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    with sessions() as session:
        assert session.get_one(Study, study_id).message == "stopped by the user"


def test_stop_and_cancel_at_once(sessions: Sessions) -> None:
    """Both wait for the next dispatcher: the stop ends the search, and the cancel leaves nothing to confirm."""
    study_id = post(sessions)
    dispatched(sessions, confirming=False)
    ask(sessions, study_id, IntentKind.STOP)
    ask(sessions, study_id, IntentKind.CANCEL)
    expire_lease(sessions)
    successor, _ = make(sessions, FakeExecutor(loss_of))
    turn_until(successor, lambda: state_of(sessions, study_id) == "cancelled", turns=60)
