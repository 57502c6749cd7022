"""A snapshot is whole, or it is not used."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import trainer.snapshots.stores.folder
from trainer.common.errors import SnapshotError
from trainer.data.token_cache import TokenCache
from trainer.snapshots.snapshot import SnapshotStore
from trainer.snapshots.stores.base import ADAPTER, MANIFEST, OPTIMIZER
from trainer.snapshots.stores.folder import FolderStore
from trainer.spec import FileDigest, Outcome, Slice, SnapshotRef, TrialSpec, Usage
from trainer.training.engines.resident import ResidentEngine, ResidentTrial
from trainer.worker.resident_trials import Residents
from trainer.worker.slice_run import SliceRun

Train = Callable[..., list[float]]


@pytest.fixture
def trial(engine: ResidentEngine, make_spec: Callable[..., TrialSpec]) -> ResidentTrial:
    return engine.admit(make_spec(), None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "snapshots"


@pytest.fixture
def store(root: Path) -> SnapshotStore:
    return SnapshotStore(FolderStore(root))


@pytest.fixture
def two(engine: ResidentEngine, trial: ResidentTrial, train: Train, store: SnapshotStore) -> list[SnapshotRef]:
    """Snapshots of the same trial after 8 and after 16 examples."""
    refs = []
    for examples in (8, 16):
        train(engine, trial, examples)
        refs.append(store.write(f"s/t/{examples}", engine.snapshot(trial, None), Usage()))
    return refs


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def link(path: Path) -> None:
    elsewhere = path.parent.parent / path.name
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


@pytest.mark.parametrize("name", [ADAPTER, OPTIMIZER, MANIFEST])
@pytest.mark.parametrize("harm", [flip, cut, link, Path.unlink])
def test_damage_is_seen_and_the_older_one_is_used(
    root: Path,
    store: SnapshotStore,
    two: list[SnapshotRef],
    trial: ResidentTrial,
    name: str,
    harm: Callable[[Path], None],
) -> None:
    harm(root / two[1].path / name)
    with pytest.raises(SnapshotError):
        store.read(two[1])
    snapshot, discarded = store.newest(two, trial.digest, store.read(two[0]).state.base_digest)
    assert snapshot is not None
    assert (snapshot.ref, discarded) == (two[0], ("s/t/16",))


def test_a_snapshot_of_another_trial_or_base_is_passed_over(store: SnapshotStore, two: list[SnapshotRef]) -> None:
    assert store.newest(two, "0" * 64, "0" * 64) == (None, ("s/t/16", "s/t/8"))


def test_the_same_attempt_may_write_again(
    engine: ResidentEngine,
    trial: ResidentTrial,
    train: Train,
    root: Path,
    store: SnapshotStore,
    two: list[SnapshotRef],
) -> None:
    train(engine, trial, 24)
    ref = store.write("s/t/16", engine.snapshot(trial, None), Usage(steps=3))
    assert store.read(ref).state.examples_seen == 24
    assert sorted(path.name for path in (root / "s/t").iterdir()) == ["16", "8"]


def test_nothing_is_left_of_a_write_that_failed(
    engine: ResidentEngine, trial: ResidentTrial, root: Path, store: SnapshotStore, two: list[SnapshotRef]
) -> None:
    state = engine.snapshot(trial, None)
    state.adapter["bad"] = torch.zeros(4).to_sparse()
    with pytest.raises(ValueError, match="sparse"):
        store.write("s/t/9", state, Usage())
    assert sorted(path.name for path in (root / "s/t").iterdir()) == ["16", "8"]


def test_paths_do_not_lead_outside(
    engine: ResidentEngine, trial: ResidentTrial, root: Path, store: SnapshotStore, tmp_path: Path
) -> None:
    root.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    state = engine.snapshot(trial, None)
    for path in ("../elsewhere/x", "linked/x", "/etc/x", "s//x"):
        with pytest.raises(SnapshotError, match="leads outside"):
            store.write(path, state, Usage())
    assert not list((tmp_path / "elsewhere").iterdir())


def test_snapshots_are_found_by_trial(store: SnapshotStore, two: list[SnapshotRef], trial: ResidentTrial) -> None:
    assert sorted(store.find("s/t", trial.digest), key=lambda ref: ref.examples_seen) == two
    assert store.find("s/t", "0" * 64) == []


def test_what_does_not_read_back_leaves_the_one_before(
    engine: ResidentEngine,
    trial: ResidentTrial,
    train: Train,
    root: Path,
    store: SnapshotStore,
    two: list[SnapshotRef],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A disk that loses a bit: found before the older snapshot at the same path is given up."""
    write = trainer.snapshots.stores.folder._write

    def lossy(path: Path, content: bytes) -> FileDigest:
        digest = write(path, content)
        if path.name == OPTIMIZER:
            flip(path)
        return digest

    monkeypatch.setattr(trainer.snapshots.stores.folder, "_write", lossy)
    train(engine, trial, 24)
    with pytest.raises(SnapshotError, match="does not read back"):
        store.write("s/t/16", engine.snapshot(trial, None), Usage())
    assert store.read(two[1]).state.examples_seen == 16
    assert sorted(path.name for path in (root / "s/t").iterdir()) == ["16", "8"]


def test_a_snapshot_is_removed_below_the_root_only(
    root: Path, store: SnapshotStore, two: list[SnapshotRef], tmp_path: Path
) -> None:
    store.remove(two[0])
    store.remove(two[0])
    assert [path.name for path in (root / "s/t").iterdir()] == ["16"]
    (root / "linked").symlink_to(tmp_path)
    with pytest.raises(SnapshotError, match="leads outside"):
        store.remove(SnapshotRef(path="linked/snapshots", digest="0" * 64, examples_seen=0))
    assert store.read(two[1])


def test_a_slice_keeps_two_of_its_checkpoints(
    make_spec: Callable[..., TrialSpec], token_cache: TokenCache, root: Path, store: SnapshotStore
) -> None:
    slice_ = Slice(
        slice_id=1, attempt=1, trial=make_spec(checkpoint_every_steps=2), until_examples=74, snapshot_dir="1/1/74/1"
    )
    run, result = SliceRun(slice_, Residents(torch.device("cpu"), 1, token_cache), store, lambda _: None), None
    while result is None:
        result = run.tick()
    assert result.outcome is Outcome.DONE
    names = sorted(path.name for path in (root / "1/1/74/1").iterdir())
    assert names == ["checkpoint-48", "checkpoint-64", "rung-74"]
