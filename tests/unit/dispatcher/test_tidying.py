"""Old snapshots go; the one that counts and everything outside the root stay."""

from pathlib import Path

from hpo_service.dispatcher.tidying import Tidying
from trainer.spec import SnapshotRef


def make(root: Path, *paths: str) -> None:
    for path in paths:
        folder = root / path
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")


def test_a_reached_rung_keeps_its_final_snapshot_only(tmp_path: Path) -> None:
    make(tmp_path, "1/2/60/1/checkpoint-20", "1/2/60/2/checkpoint-40", "1/2/60/2/rung-60", "1/2/20/1/rung-20")
    tidying = Tidying(tmp_path)
    tidying.rung_reached(SnapshotRef(path="1/2/60/2/rung-60", digest="0" * 64, examples_seen=60))
    tidying.close()
    left = sorted(str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("manifest.json"))
    assert left == ["1/2/20/1/rung-20", "1/2/60/2/rung-60"]


def test_a_deleted_study_leaves_nothing_and_others_alone(tmp_path: Path) -> None:
    make(tmp_path, "1/2/60/1/rung-60", "2/5/60/1/rung-60")
    tidying = Tidying(tmp_path)
    tidying.study_deleted(1)
    tidying.close()
    assert [path.name for path in tmp_path.iterdir()] == ["2"]


def test_a_link_out_of_the_root_is_not_followed(tmp_path: Path) -> None:
    make(tmp_path, "outside", "root/1")
    (tmp_path / "root" / "3").symlink_to(tmp_path / "outside")
    tidying = Tidying(tmp_path / "root")
    tidying.study_deleted(3)
    tidying.close()
    assert (tmp_path / "outside" / "manifest.json").exists()
