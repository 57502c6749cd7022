"""What every snapshot store promises of artifacts: the models that deliveries leave in it."""

from hashlib import sha256
from pathlib import Path

import pytest

from hpo_service.dispatcher.snapshots.garbage_collection import Tidying
from tests.store_rigs import FolderRig, Rig, a_state, flip
from trainer.common.errors import SnapshotError
from trainer.snapshots.snapshot import SnapshotStore
from trainer.snapshots.stores import Store
from trainer.spec import FileDigest, Usage

ARTIFACT = "deliveries/1/merged/2/model"
CONTENTS = {"config.json": b"{}", "sub/weights.bin": b"w" * 5000}


def build(store: Store, scratch: Path, path: str = ARTIFACT) -> dict[str, FileDigest]:
    with store.building(path, scratch) as folder:
        for name, content in CONTENTS.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
    return {
        name: FileDigest(sha256=sha256(content).hexdigest(), size_bytes=len(content))
        for name, content in CONTENTS.items()
    }


def test_an_artifact_is_kept_whole_and_read_back_verified(rig: Rig, tmp_path: Path) -> None:
    files = build(rig.store, tmp_path)
    with rig.store.fetched(ARTIFACT, files, tmp_path) as folder:
        assert {name: (folder / name).read_bytes() for name in files} == CONTENTS
    with rig.store.open_file(ARTIFACT, files, "sub/weights.bin") as file:
        assert file.read() == CONTENTS["sub/weights.bin"]
    rig.change(ARTIFACT, "sub/weights.bin" if isinstance(rig, FolderRig) else "weights.bin", flip)
    with pytest.raises(SnapshotError), rig.store.fetched(ARTIFACT, files, tmp_path):
        pass
    with pytest.raises(SnapshotError):
        rig.store.open_file(ARTIFACT, files, "sub/weights.bin")
    assert rig.store.look().snapshots == []


def test_of_an_artifact_that_broke_off_nothing_is_there(rig: Rig, tmp_path: Path) -> None:
    other = "deliveries/1/merged/1/model"
    files = build(rig.store, tmp_path, other)
    with pytest.raises(IsADirectoryError), rig.store.building(ARTIFACT, tmp_path) as folder:
        folder.write_bytes(b"")
    with pytest.raises(SnapshotError):
        rig.store.open_file(ARTIFACT, files, "config.json")
    files = build(rig.store, tmp_path)
    rig.store.keep_only(ARTIFACT)
    rig.store.open_file(ARTIFACT, files, "config.json").close()
    with pytest.raises(SnapshotError):
        rig.store.open_file(other, files, "config.json")


def test_an_artifact_lies_inside_the_store(rig: Rig, tmp_path: Path) -> None:
    files = build(rig.store, tmp_path)
    for path in ("../out", "deliveries/../../out", "/out"):
        with pytest.raises(SnapshotError), rig.store.building(path, tmp_path):
            pass
        with pytest.raises(SnapshotError):
            rig.store.open_file(path, files, "config.json")
    with pytest.raises(SnapshotError):
        rig.store.open_file(ARTIFACT, {"../x": files["config.json"]}, "../x")


def test_what_was_delivered_stays(rig: Rig, snapshots: SnapshotStore, tmp_path: Path) -> None:
    trained = snapshots.write("deliveries/1/train/1/rung-60", a_state(), Usage())
    merged = build(rig.store, tmp_path)
    tidying = Tidying(rig.store)
    tidying.study_deleted(1)
    tidying.sweep_if_due()
    tidying.close()
    assert rig.store.look().snapshots == []
    found, discarded = snapshots.newest([trained], "t", "b")
    assert found is not None
    assert (found.ref, discarded) == (trained, ())
    rig.store.open_file(ARTIFACT, merged, "config.json").close()
