"""A study that wants more devices than a growing cluster has: it waits, says so, and goes on."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.executors.base import Wanted
from hpo_service.executors.fake import FakeExecutor
from hpo_service.storage.tables import Study
from tests.dispatching import events_of, loss_of, make, post_study, state_of, turn_until

Sessions = sessionmaker[Session]


class Growing(FakeExecutor):
    """Two devices, of which the second one comes when `grown` is set; any number may come."""

    grown = False

    @property
    def largest_group(self) -> int:
        return 1024

    @property
    def devices_present(self) -> int | None:
        return 2 if self.grown else 1

    def demand(self, wanted: Sequence[Wanted]) -> None:
        if self.grown:
            super().demand(wanted)


def message_of(sessions: Sessions, study_id: int) -> str:
    with sessions() as session:
        return session.execute(select(Study.message).where(Study.id == study_id)).scalar_one()


def test_it_says_what_it_waits_for_and_goes_on_when_the_devices_come(sessions: Sessions) -> None:
    study_id = post_study(sessions, resources={"gpus_per_trial": 2}, budget__max_trials=2)
    fake = Growing(loss_of, workers=2)
    dispatcher, _ = make(sessions, fake)
    turn_until(dispatcher, lambda: message_of(sessions, study_id) != "")
    for _ in range(5):
        dispatcher.turn()
    message = message_of(sessions, study_id)
    assert "gpus_per_trial is 2 and the fake executor has 1 device(s) now" in message
    assert state_of(sessions, study_id) == "queued"
    assert [event.payload.get("message") for event in events_of(sessions, study_id)].count(message) == 1
    fake.grown = True
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "running")
    assert message_of(sessions, study_id) == ""
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")


def test_a_study_that_fits_beside_it_runs_all_the_same(sessions: Sessions) -> None:
    large = post_study(sessions, resources={"gpus_per_trial": 2})
    small = post_study(sessions, metadata={"name": "small"}, budget__max_trials=3)
    dispatcher, _ = make(sessions, Growing(loss_of, workers=2))
    turn_until(dispatcher, lambda: state_of(sessions, small) == "completed")
    assert state_of(sessions, large) == "queued"
    assert message_of(sessions, large) != ""
