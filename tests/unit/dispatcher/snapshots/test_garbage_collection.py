"""Old snapshots go; the one that counts and everything outside the root stay."""

import os
import time
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from hpo_service.dispatcher.snapshots.garbage_collection import Tidying
from hpo_service.dispatcher.snapshots.retention import StudyNeeds
from trainer.snapshots.stores.folder import FolderStore


def make(root: Path, *paths: str) -> None:
    for path in paths:
        folder = root / path
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")


def test_a_reached_rung_keeps_its_final_snapshot_only(tmp_path: Path) -> None:
    make(tmp_path, "1/2/60/1/checkpoint-20", "1/2/60/2/checkpoint-40", "1/2/60/2/rung-60", "1/2/20/1/rung-20")
    tidying = Tidying(FolderStore(tmp_path))
    tidying.keep_only("1/2/60/2/rung-60")
    tidying.close()
    left = sorted(str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("manifest.json"))
    assert left == ["1/2/20/1/rung-20", "1/2/60/2/rung-60"]


def test_a_deleted_study_leaves_nothing_and_others_alone(tmp_path: Path) -> None:
    make(tmp_path, "1/2/60/1/rung-60", "2/5/60/1/rung-60")
    tidying = Tidying(FolderStore(tmp_path))
    tidying.study_deleted(1)
    tidying.close()
    assert [path.name for path in tmp_path.iterdir()] == ["2"]


def test_a_link_out_of_the_root_is_not_followed(tmp_path: Path) -> None:
    make(tmp_path, "outside", "root/1")
    (tmp_path / "root" / "3").symlink_to(tmp_path / "outside")
    tidying = Tidying(FolderStore(tmp_path / "root"))
    tidying.study_deleted(3)
    tidying.close()
    assert (tmp_path / "outside" / "manifest.json").exists()


def kept(root: Path) -> list[str]:
    return sorted(str(path.parent.relative_to(root)) for path in root.rglob("manifest.json"))


def sweep(root: Path, needs: dict[int, StudyNeeds], max_bytes: int | None = None) -> list[str]:
    tidying = Tidying(FolderStore(root), lambda: needs, max_bytes)
    tidying.sweep_if_due()
    tidying.close()
    return kept(root)


def test_a_sweep_keeps_what_is_needed_and_what_it_does_not_know(tmp_path: Path) -> None:
    needed = ["1/2/60/1/rung-60", "1/3/20/1/checkpoint-10", "1/4/20/2/rung-20", "9/1/60/1/rung-60"]
    make(tmp_path, *needed, "1/2/20/1/rung-20", "1/5/20/1/rung-20", "notes/a/b/c/d", "1/2/x/1/rung-1")
    (tmp_path / "1/5/log.jsonl").write_text("{}")
    best = ("1/2/60/1/rung-60",)
    study = StudyNeeds(open_rungs=frozenset({"1/3/20"}), resumable=frozenset({"1/4/20/2/rung-20"}), best=best)
    assert sweep(tmp_path, {1: study}) == sorted([*needed, "notes/a/b/c/d", "1/2/x/1/rung-1"])
    assert sorted(path.name for path in (tmp_path / "1/5").iterdir()) == ["log.jsonl"]


def test_a_size_cap_takes_the_oldest_ended_studies_first_and_never_a_best_trial(tmp_path: Path) -> None:
    live = StudyNeeds(resumable=frozenset({"1/1/8/1/a"}), best=("1/2/8/1/a", "1/3/8/1/a"))
    old = StudyNeeds(best=("2/1/8/1/a", "2/2/8/1/a", "2/3/8/1/a"), ended_at=1.0)
    new = StudyNeeds(best=("3/1/8/1/a", "3/2/8/1/a"), ended_at=2.0)
    needs = {1: live, 2: old, 3: new}
    everything = sorted([*live.resumable, *live.best, *old.best, *new.best])
    make(tmp_path, *everything)
    bytes_each = 2
    assert sweep(tmp_path, needs, len(everything) * bytes_each) == everything
    assert sweep(tmp_path, needs, len(everything) * bytes_each - 1) == sorted(set(everything) - {"2/3/8/1/a"})
    assert sweep(tmp_path, needs, 5 * bytes_each) == sorted([*live.resumable, *live.best, old.best[0], new.best[0]])
    assert sweep(tmp_path, needs, 1) == sorted([*live.resumable, *live.best, old.best[0], new.best[0]])


def test_old_leftovers_of_killed_writers_go(tmp_path: Path) -> None:
    make(tmp_path, "1/2/60/1/.partial-old", "1/2/60/1/.aside-old", "1/2/60/1/.partial-new")
    for name in (".partial-old", ".aside-old"):
        os.utime(tmp_path / "1/2/60/1" / name, (0, time.time() - 4000))
    assert sweep(tmp_path, {}) == ["1/2/60/1/.partial-new"]


def test_nothing_goes_while_the_database_is_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, "1/2/60/1/rung-60")

    def away() -> dict[int, StudyNeeds]:
        raise OperationalError("select", {}, Exception("no connection"))

    tidying = Tidying(FolderStore(tmp_path), away)
    tidying.sweep_if_due()
    tidying.close()
    assert kept(tmp_path) == ["1/2/60/1/rung-60"]
    assert "no connection" in caplog.text


def test_a_linked_study_is_not_swept(tmp_path: Path) -> None:
    make(tmp_path, "outside/2/60/1/rung-60", "root/1/1/1/1/a")
    (tmp_path / "root" / "3").symlink_to(tmp_path / "outside")
    sweep(tmp_path / "root", {1: StudyNeeds(), 3: StudyNeeds()})
    assert kept(tmp_path) == ["outside/2/60/1/rung-60"]


def test_what_is_left_is_told_once_by_study(tmp_path: Path) -> None:
    make(tmp_path, "1/2/60/1/rung-60", "1/2/20/1/rung-20", "9/1/60/1/rung-60")
    tidying = Tidying(FolderStore(tmp_path), lambda: {1: StudyNeeds(best=("1/2/60/1/rung-60",))})
    assert tidying.take_left() is None
    tidying.sweep_if_due()
    tidying.close()
    assert tidying.take_left() == {1: 2, 9: 2}
    assert tidying.take_left() is None


def test_a_sweep_follows_a_deletion_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "1/2/60/1/rung-60")
    now = 1000.0
    monkeypatch.setattr("hpo_service.dispatcher.snapshots.garbage_collection.time.monotonic", lambda: now)
    tidying = Tidying(FolderStore(tmp_path))

    def swept() -> bool:
        tidying.sweep_if_due()
        tidying._pool.submit(lambda: None).result()
        return tidying.take_left() is not None

    assert swept()
    now += 31
    assert not swept()
    tidying.study_deleted(1)
    assert swept()
    now += 31
    assert not swept()
    tidying.close()
