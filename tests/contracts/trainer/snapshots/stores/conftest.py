"""One store of each kind."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.object_store import served_s3
from tests.store_rigs import FolderRig, ObjectRig, Rig
from trainer.snapshots.snapshot import SnapshotStore


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, served_s3(patch) as storage:
        yield storage.url


@pytest.fixture(params=["folder", "memory", "s3"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Rig:
    if request.param == "folder":
        return FolderRig(tmp_path / "snapshots")
    if request.param == "memory":
        return ObjectRig(f"memory://snapshots/{uuid4().hex}")
    return ObjectRig(f"{request.getfixturevalue('s3')}/{uuid4().hex}")


@pytest.fixture
def snapshots(rig: Rig) -> SnapshotStore:
    return SnapshotStore(rig.store)
