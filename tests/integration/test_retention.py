"""What studies need of their snapshots, read from a real database while they run and after."""

from dataclasses import replace
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.dispatcher.snapshots.garbage_collection import Tidying
from hpo_service.dispatcher.snapshots.retention import Retention, StudyNeeds, read_needs, superfluous
from hpo_service.storage.tables import Slice
from tests.dispatching import make, optuna_trials, post_study, state_of, turn_until
from trainer.snapshots.stores.base import StoredSnapshot
from trainer.snapshots.stores.folder import FolderStore

Sessions = sessionmaker[Session]


def needs_of(sessions: Sessions, study_id: int, keep_best: int = Retention().keep_best) -> StudyNeeds:
    with sessions() as session:
        return read_needs(session, keep_best)[study_id]


def test_an_ended_study_needs_its_best_trials(sessions: Sessions, database_url: str) -> None:
    study_id = post_study(sessions)
    dispatcher, _ = make(sessions)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    needs = needs_of(sessions, study_id)
    complete = [trial for trial in optuna_trials(database_url) if trial.state.name == "COMPLETE"]
    winner = min(complete, key=lambda trial: trial.value or 0.0)
    assert needs.ended_at is not None
    assert not needs.open_rungs | needs.resumable
    assert len(needs.best) == 3
    assert needs.best[0].startswith(f"{study_id}/{winner._trial_id}/1000/")
    assert needs_of(sessions, study_id, keep_best=1).best == needs.best[:1]


def as_on_disk(needs: StudyNeeds) -> StudyNeeds:
    """The fake executor names the folder of the attempt; a worker's snapshots are inside."""
    return replace(
        needs,
        resumable=frozenset(f"{path}/rung" for path in needs.resumable),
        best=tuple(f"{path}/rung" for path in needs.best),
    )


def test_a_live_study_loses_nothing_that_it_goes_on_from(sessions: Sessions, tmp_path: Path) -> None:
    """Swept after every turn, with every snapshot on disk that the database knows."""
    study_id = post_study(sessions)
    dispatcher, fake = make(sessions)
    swept: set[str] = set()
    resumed: list[str] = []

    def ended() -> bool:
        offered = [work.snapshots[0].path for work in fake.submitted if work.snapshots]
        assert not swept.intersection(offered[len(resumed) :])
        resumed[:] = offered
        needs = as_on_disk(needs_of(sessions, study_id, keep_best=1))
        with sessions() as session:
            known = {ref["path"] for refs in session.scalars(select(Slice.snapshots)) for ref in refs}
        for path in known - swept:
            (tmp_path / path / "rung").mkdir(parents=True, exist_ok=True)
            (tmp_path / path / "rung" / "manifest.json").write_text("{}")
        tidying = Tidying(FolderStore(tmp_path), lambda: {study_id: needs})
        tidying.sweep_if_due()
        tidying.close()
        left = {str(path.parent.parent.relative_to(tmp_path)) for path in tmp_path.rglob("manifest.json")}
        swept.update(known - left)
        return state_of(sessions, study_id) == "completed"

    turn_until(dispatcher, ended)
    assert resumed
    assert len({work.snapshot_dir for work in fake.submitted}) - len(swept) == 1


def test_a_study_that_is_not_known_is_left_alone(sessions: Sessions) -> None:
    with sessions() as session:
        needs = read_needs(session, 3)
    assert superfluous([StoredSnapshot(path="77/1/8/1/rung-8", size_bytes=1)], needs, 0) == []
