"""What every snapshot store promises, whatever it keeps files on."""

import time
from pathlib import Path

import pytest
import s3fs
import torch

from hpo_service.dispatcher.snapshots.garbage_collection import Tidying
from hpo_service.dispatcher.snapshots.retention import StudyNeeds
from tests.store_rigs import Change, Rig, a_state, cut, flip, gone, paths
from trainer.common import failpoints
from trainer.common.errors import SnapshotError
from trainer.distributed.ranks import Ranks
from trainer.snapshots.snapshot import SnapshotStore
from trainer.snapshots.snapshot_together import find_marker_together
from trainer.snapshots.stores import open_store
from trainer.snapshots.stores.base import ADAPTER, ADAPTER_CONFIG, MANIFEST, OPTIMIZER, StoredSnapshot
from trainer.snapshots.stores.folder import FolderStore
from trainer.snapshots.stores.marker import leave_marker, read_marker
from trainer.snapshots.stores.verify import open_files, verified_manifest
from trainer.spec import SnapshotRef, Usage


def test_what_was_written_is_read_bit_for_bit(snapshots: SnapshotStore) -> None:
    losses = {"loss": torch.tensor([1.0, 2.0]), "tokens": torch.tensor([3, 4], dtype=torch.int32)}
    state = a_state(16, eval_loss=1.5, eval_tokens=7, eval_losses=losses)
    read = snapshots.read(snapshots.write("1/1/16/1/rung-16", state, Usage(steps=2))).state
    for mine, theirs in ((state.adapter, read.adapter), (state.optimizer, read.optimizer), (losses, read.eval_losses)):
        assert theirs is not None
        assert {name: tensor.numpy().tobytes() for name, tensor in mine.items()} == {
            name: tensor.numpy().tobytes() for name, tensor in theirs.items()
        }
    assert (read.examples_seen, read.eval_loss, read.divergence) == (16, 1.5, {"best": 1.5})


@pytest.mark.parametrize("name", [ADAPTER, OPTIMIZER, MANIFEST])
@pytest.mark.parametrize("harm", [flip, cut, gone])
def test_what_is_damaged_is_passed_over(rig: Rig, snapshots: SnapshotStore, name: str, harm: Change) -> None:
    refs = [snapshots.write(f"1/1/16/1/checkpoint-{examples}", a_state(examples), Usage()) for examples in (8, 16)]
    found, discarded = snapshots.newest(refs, "t", "b")
    assert found is not None
    assert (found.ref, discarded) == (refs[1], ())
    rig.change(refs[1].path, name, harm)
    with pytest.raises(SnapshotError):
        snapshots.read(refs[1])
    if name != OPTIMIZER:
        with pytest.raises(SnapshotError):
            open_files(rig.store, refs[1], (ADAPTER_CONFIG, ADAPTER))
    found, discarded = snapshots.newest(refs, "t", "b")
    assert found is not None
    assert (found.ref, discarded) == (refs[0], (refs[1].path,))


@pytest.mark.parametrize("place", ["snapshot.before_files", "snapshot.before_manifest"])
def test_half_a_snapshot_cannot_be_seen(rig: Rig, snapshots: SnapshotStore, place: str) -> None:
    before = snapshots.write("1/1/16/1/checkpoint-8", a_state(8), Usage())
    for path in ("1/1/16/1/checkpoint-16", "1/1/16/1/checkpoint-8"):
        failpoints.arm(f"{place}=error")
        try:
            with pytest.raises(OSError, match="failpoint"):
                snapshots.write(path, a_state(9), Usage())
        finally:
            failpoints.arm("")
    assert snapshots.read(before).state.examples_seen == 8
    assert snapshots.find("1/1/16/1", "t") == [before]
    assert paths(rig.store) == ["1/1/16/1/checkpoint-8"]


@pytest.mark.parametrize("name", [ADAPTER, OPTIMIZER])
def test_what_does_not_read_back_leaves_the_one_before(
    rig: Rig, snapshots: SnapshotStore, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = snapshots.write("1/1/16/1/checkpoint-8", a_state(8), Usage())
    size = rig.store.look().snapshots[0].size_bytes
    rig.lose_bits_of(name, monkeypatch)
    with pytest.raises(SnapshotError, match="does not read back"):
        snapshots.write("1/1/16/1/checkpoint-8", a_state(9), Usage())
    assert snapshots.read(before).state.examples_seen == 8
    assert rig.store.look().snapshots == [StoredSnapshot(path="1/1/16/1/checkpoint-8", size_bytes=size)]


def test_the_same_attempt_may_write_again(rig: Rig, snapshots: SnapshotStore) -> None:
    snapshots.write("1/1/16/1/rung-16", a_state(8), Usage())
    size = rig.store.look().snapshots[0].size_bytes
    for _ in range(2):
        ref = snapshots.write("1/1/16/1/rung-16", a_state(9), Usage())
    assert snapshots.read(ref).state.examples_seen == 9
    assert rig.store.look().snapshots == [StoredSnapshot(path=ref.path, size_bytes=size)]


def test_no_path_leads_outside(rig: Rig, snapshots: SnapshotStore) -> None:
    for path in ("../x", "/etc/x", "1//x", "1/./x", "1/../../x"):
        with pytest.raises(SnapshotError, match="leads outside"):
            snapshots.write(path, a_state(), Usage())
        outside = SnapshotRef.model_construct(path=path, digest="0" * 64, examples_seen=1)
        for do in (snapshots.read, snapshots.remove):
            with pytest.raises(SnapshotError, match="leads outside"):
                do(outside)


def test_a_snapshot_is_removed_and_its_neighbours_stay(rig: Rig, snapshots: SnapshotStore) -> None:
    refs = [snapshots.write(f"1/1/16/1/checkpoint-{examples}", a_state(examples), Usage()) for examples in (1, 16)]
    for _ in range(2):
        snapshots.remove(refs[0])
    assert paths(rig.store) == [refs[1].path]
    with pytest.raises(SnapshotError):
        snapshots.read(refs[0])
    assert snapshots.read(refs[1])


def test_snapshots_are_found_by_trial(snapshots: SnapshotStore) -> None:
    refs = [snapshots.write(f"snapshots/checkpoint-{examples}", a_state(examples), Usage()) for examples in (8, 16)]
    snapshots.write("snapshots/deeper/checkpoint-8", a_state(), Usage())
    snapshots.write("snapshots/other", a_state(trial_digest="another"), Usage())
    assert sorted(snapshots.find("snapshots", "t"), key=lambda ref: ref.examples_seen) == refs
    assert snapshots.find("nothing", "t") == []


def test_an_adapter_is_opened_verified(rig: Rig, snapshots: SnapshotStore) -> None:
    ref = snapshots.write("1/1/16/1/rung-16", a_state(), Usage())
    files = verified_manifest(rig.store, ref).files
    for name, size_bytes, file in open_files(rig.store, ref, (ADAPTER_CONFIG, ADAPTER)):
        with file:
            assert file.read() == rig.store.read(ref.path, files, name)
            assert file.tell() == size_bytes


def test_of_a_reached_rung_the_final_snapshot_stays(rig: Rig, snapshots: SnapshotStore) -> None:
    kept = ("1/2/60/2/rung-60", "1/2/20/1/rung-20", "1/2/600/1/rung-600", "1/21/60/1/rung-60")
    for path in ("1/2/60/1/checkpoint-20", "1/2/60/2/checkpoint-40", *kept):
        snapshots.write(path, a_state(), Usage())
    tidying = Tidying(rig.store)
    tidying.keep_only("1/2/60/2/rung-60")
    tidying.close()
    assert paths(rig.store) == sorted(kept)


def test_a_sweep_takes_what_nothing_needs(rig: Rig, snapshots: SnapshotStore, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = ["1/2/60/1/rung-60", "1/3/20/1/checkpoint-10", "9/1/60/1/rung-60"]
    for path in (*needed, "1/2/20/1/rung-20", "1/5/20/1/rung-20", "2/1/60/1/rung-60", "notes/a/b/c/d"):
        snapshots.write(path, a_state(), Usage())
    needs = {1: StudyNeeds(open_rungs=frozenset({"1/3/20"}), best=("1/2/60/1/rung-60",)), 2: StudyNeeds()}
    tidying = Tidying(rig.store, lambda: needs)
    tidying.study_deleted(7)
    tidying.sweep_if_due()
    tidying.close()
    assert paths(rig.store) == needed
    assert rig.store.snapshots_in("notes/a/b/c") == ["notes/a/b/c/d"]


def test_what_killed_writers_left_goes_after_an_hour(
    rig: Rig, snapshots: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.leave_half("1/2/60/1/rung-60")
    assert (list(rig.store.look().snapshots), list(rig.store.look().leftovers)) == ([], [])
    now = time.time()
    monkeypatch.setattr("trainer.snapshots.stores.cleanup.time.time", lambda: now + 4000)
    (leftover,) = rig.store.look().leftovers
    rig.store.remove(leftover)
    assert list(rig.store.look().leftovers) == []


def test_a_deleted_study_leaves_nothing_and_others_alone(rig: Rig, snapshots: SnapshotStore) -> None:
    for path in ("1/2/60/1/rung-60", "11/5/60/1/rung-60"):
        snapshots.write(path, a_state(), Usage())
    log = rig.store.open_log("1/2")
    log.write(b"line\n")
    log.close()
    tidying = Tidying(rig.store)
    tidying.study_deleted(1)
    tidying.close()
    assert paths(rig.store) == ["11/5/60/1/rung-60"]
    assert rig.store.log_tail("1/2", 100) == b""


def test_a_leader_knows_the_markers_of_those_before(rig: Rig, tmp_path: Path) -> None:
    with pytest.raises(SnapshotError):
        read_marker(rig.store)
    first = leave_marker(rig.store, 1)
    assert read_marker(rig.store) == first
    assert find_marker_together(rig.store, Ranks()) == (first.id, "")
    second = leave_marker(rig.store, 2)
    assert second.id != first.id
    assert read_marker(rig.store).known() == {first.id, second.id}
    found, problem = find_marker_together(FolderStore(tmp_path / "elsewhere"), Ranks())
    assert found == ""
    assert "marker.json cannot be read" in problem
    rig.store.put("marker.json", b"{}")
    with pytest.raises(SnapshotError, match="cannot be understood"):
        read_marker(rig.store)
    assert leave_marker(rig.store, 3).earlier == ()


def test_attempts_append_to_one_log(rig: Rig) -> None:
    assert rig.store.log_tail("1/2", 100) == b""
    for attempt in range(3):
        log = rig.store.open_log("1/2")
        assert log.tell() == attempt * 10
        log.write(b"%04d\n" % attempt)
        log.flush()
        log.write(b"%04d\n" % (attempt + 10))
        log.close()
    assert rig.store.log_tail("1/2", 12) == b"1\n0002\n0012\n"[-12:]
    assert rig.store.log_tail("1/2", 1000) == b"0000\n0010\n0001\n0011\n0002\n0012\n"
    assert paths(rig.store) == []


def test_a_store_that_does_not_answer_is_no_damage(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a trial would begin anew because of a network that was down for a moment."""
    snapshots = SnapshotStore(open_store(s3))
    ref = snapshots.write("1/1/16/1/rung-16", a_state(), Usage())
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        away = SnapshotStore(open_store(s3))
        with pytest.raises(OSError, match="does not answer"):
            away.newest([ref], "t", "b")
        with pytest.raises(OSError, match="does not answer"):
            away.write("1/1/16/2/rung-16", a_state(), Usage())
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
