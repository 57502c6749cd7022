"""A dispatcher that takes over from another whose workers go on without it."""

from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.study_rules import Cause
from hpo_service.executors.base import Token, WorkerReady
from hpo_service.executors.fake import FakeExecutor
from hpo_service.storage.tables import Attempt, Worker
from tests.dispatching import expire_lease, loss_of, make, post_study, state_of, turn_until
from trainer.spec import Ready

Sessions = sessionmaker[Session]


class Lasting(FakeExecutor):
    """Its workers live on: the next dispatcher finds them, and they say again that they are warm."""

    lasting = True

    def start(self) -> None:
        if not self.workers():
            super().start()

    def reattach(self) -> Mapping[str, Sequence[Token]]:
        if not self.submitted:
            return {}
        for worker in self.workers():
            ready = Ready(pid=1, device="fake", ranks=1, software={})
            self._events.append(WorkerReady(worker=worker, ready=ready, node="fake", places=self._places[worker]))
        return {worker: [work.token for work in self._held[worker]] for worker in self.workers()}


def attempts(sessions: Sessions) -> list[Attempt]:
    with sessions() as session:
        return list(session.scalars(select(Attempt).order_by(Attempt.slice_id, Attempt.attempt)))


def test_what_living_workers_hold_goes_on_under_the_next_dispatcher(sessions: Sessions) -> None:
    study_id = post_study(sessions, budget__max_trials=4, budget__max_parallel=2)
    fake = Lasting(loss_of, workers=2)
    fake.hold = True
    first, _ = make(sessions, fake)
    turn_until(first, lambda: len(attempts(sessions)) == 2)
    expire_lease(sessions)
    second, _ = make(sessions, fake)
    second.turn()
    assert [attempt.outcome for attempt in attempts(sessions)] == [None, None]
    fake.hold = False
    turn_until(second, lambda: state_of(sessions, study_id) == "completed")
    assert {(attempt.attempt, attempt.outcome) for attempt in attempts(sessions)} == {(1, "done")}
    with sessions() as session:
        assert len(session.scalars(select(Worker)).all()) == 2


def test_what_nobody_holds_any_more_is_lost_and_tried_again(sessions: Sessions) -> None:
    study_id = post_study(sessions, budget__max_trials=4, budget__max_parallel=2)
    fake = Lasting(loss_of, workers=2)
    fake.hold = True
    first, _ = make(sessions, fake)
    turn_until(first, lambda: len(attempts(sessions)) == 2)
    expire_lease(sessions)
    (_, kept) = fake.workers()
    fake._held.pop(next(worker for worker in fake.workers() if worker != kept))
    second, _ = make(sessions, fake)
    second.turn()
    fake.hold = False
    turn_until(second, lambda: state_of(sessions, study_id) == "completed")
    lost = [attempt for attempt in attempts(sessions) if attempt.outcome != "done"]
    assert [(attempt.outcome, attempt.cause) for attempt in lost] == [("lost", Cause.DISPATCHER_LOST)]
