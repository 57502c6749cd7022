"""A worker that does not see the snapshot store is refused, and told so once for each node."""

from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.executors.fake import FakeExecutor
from hpo_service.storage.tables import Event, Worker
from tests.dispatching import loss_of, post_study, state_of, turn_until
from trainer.snapshots.stores.folder import FolderStore
from trainer.snapshots.stores.marker import leave_marker, read_marker


def refusals(sessions: sessionmaker[Session]) -> list[Event]:
    with sessions() as session:
        return list(session.scalars(select(Event).where(Event.kind == "worker.refused").order_by(Event.id)))


def test_a_worker_that_sees_another_store_gets_nothing(sessions: sessionmaker[Session], tmp_path: Path) -> None:
    shared, other = FolderStore(tmp_path / "shared"), FolderStore(tmp_path / "other")
    fake = FakeExecutor(loss_of)
    fake.read_marker = lambda: leave_marker(other, 1).id
    dispatcher = Dispatcher(sessions, fake, snapshots=tmp_path / "shared", must_see_store=True)
    study_id = post_study(sessions)
    turn_until(dispatcher, lambda: bool(refusals(sessions)))
    generation = fake.workers()
    turn_until(dispatcher, lambda: fake.workers() != generation)
    for _ in range(5):
        dispatcher.turn()
    assert not fake.submitted
    (refusal,) = refusals(sessions)
    assert refusal.study_id is None
    assert refusal.payload["node"] == "fake"
    assert str(tmp_path / "shared") in refusal.payload["message"]
    assert "mount it there or use an object store" in refusal.payload["message"]
    with sessions() as session:
        assert not session.scalars(select(Worker)).all()
        assert "worker.ended" not in session.scalars(select(Event.kind)).all()
    fake.read_marker = lambda: read_marker(shared).id
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")


def test_workers_of_an_earlier_leader_still_count(sessions: sessionmaker[Session], tmp_path: Path) -> None:
    """They found its marker; the next leader finds it too."""
    earlier = leave_marker(FolderStore(tmp_path), 0)
    fake = FakeExecutor(loss_of)
    fake.read_marker = lambda: earlier.id
    dispatcher = Dispatcher(sessions, fake, snapshots=tmp_path, must_see_store=True)
    study_id = post_study(sessions)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    assert not refusals(sessions)


def test_a_store_that_is_full_stops_no_worker_that_knows_an_older_marker(
    sessions: sessionmaker[Session], tmp_path: Path
) -> None:
    class Full(FolderStore):
        def put(self, name: str, content: bytes) -> None:
            raise OSError(28, "No space left on device")

    earlier = leave_marker(FolderStore(tmp_path), 0)
    fake = FakeExecutor(loss_of)
    fake.read_marker = lambda: earlier.id
    dispatcher = Dispatcher(sessions, fake, snapshots=tmp_path, must_see_store=True)
    dispatcher._proof._store = Full(tmp_path)
    study_id = post_study(sessions)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
