"""Files of trials: only whole ones are sent, links are never followed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hpo_service.core.errors import NotFound
from hpo_service.services.trials.artifacts import open_adapter, read_tail
from tests.serving import write_snapshot
from trainer.snapshots.stores.folder import FolderStore
from trainer.spec import SnapshotRef

WEIGHTS = "adapter_model.safetensors"


def change_weights(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"Weights" * 1000)


def change_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{}")


def link_weights(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "elsewhere")
    (folder / WEIGHTS).symlink_to(folder / "elsewhere")


def remove_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def weights_become_a_folder(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()


def link_folder(folder: Path) -> None:
    moved = folder.with_name("moved")
    folder.rename(moved)
    folder.symlink_to(moved)


@pytest.mark.parametrize(
    "damage",
    [change_weights, change_manifest, link_weights, remove_weights, weights_become_a_folder, link_folder],
)
def test_the_newest_whole_snapshot_is_taken(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    newest = write_snapshot(tmp_path, "1/1/20/1", examples_seen=20)
    older = write_snapshot(tmp_path, "1/1/10/1", examples_seen=10)
    assert open_adapter([newest, older], FolderStore(tmp_path)).examples_seen == 20
    damage(tmp_path / newest.path)
    archive = open_adapter([newest, older], FolderStore(tmp_path))
    assert archive.examples_seen == 10
    assert sum(map(len, archive.chunks())) == archive.size_bytes
    with pytest.raises(NotFound):
        open_adapter([newest], FolderStore(tmp_path))


def test_nothing_outside_the_store(tmp_path: Path) -> None:
    ref = write_snapshot(tmp_path, "1/1/10/1")
    outside = SnapshotRef.model_construct(path="../x", digest=ref.digest, examples_seen=1)
    (tmp_path / "store").mkdir()
    with pytest.raises(NotFound):
        open_adapter([outside], FolderStore(tmp_path / "store"))


def test_the_tail_of_a_log(tmp_path: Path) -> None:
    store, log = FolderStore(tmp_path), tmp_path / "1" / "2" / "log.jsonl"
    log.parent.mkdir(parents=True)
    assert read_tail(store, "1/2", 10) == b""
    log.write_bytes(b"a\nb\nc")
    assert read_tail(store, "1/2", 2) == b"b\nc"
    log.write_bytes(b"x" * 80 + b"\n" + b"".join(b"%078d\n" % line for line in range(60_000)))
    assert read_tail(store, "1/2", 1) == b"%078d\n" % 59_999
    assert all(len(line) == 78 for line in read_tail(store, "1/2", 10**6).splitlines())
