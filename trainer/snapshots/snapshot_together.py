"""The store of a worker group: rank 0 looks for snapshots and writes them, and all ranks read the same one."""

import json
from collections.abc import Iterable

from trainer.common.errors import SnapshotError
from trainer.common.outcomes import outcome_of
from trainer.distributed.ranks import Ranks
from trainer.snapshots.snapshot import Snapshot, SnapshotStore, TrialState
from trainer.snapshots.stores.base import Store
from trainer.snapshots.stores.marker import read_marker
from trainer.spec import SnapshotRef, Usage


def find_together(
    store: SnapshotStore, ranks: Ranks, refs: Iterable[SnapshotRef], trial_digest: str, base_digest: str
) -> tuple[Snapshot | None, tuple[str, ...]]:
    """All ranks together: `SnapshotStore.newest` of rank 0. Raises SnapshotError if another cannot read it."""
    if ranks.size == 1:
        return store.newest(refs, trial_digest, base_digest)
    (found, discarded), _ = ranks.attempt(
        lambda: store.newest(refs, trial_digest, base_digest) if ranks.leads else (None, ())
    )
    told = {"ref": found.ref.model_dump() if found else None, "discarded": discarded}
    said = json.loads(ranks.tell(json.dumps(told).encode()))
    if said["ref"] is None:
        return None, tuple(said["discarded"])
    ref = SnapshotRef.model_validate(said["ref"])
    snapshot, _ = ranks.attempt(lambda: found or store.read(ref))
    return snapshot, tuple(said["discarded"])


def write_together(store: SnapshotStore, ranks: Ranks, path: str, state: TrialState, usage: Usage) -> SnapshotRef:
    """All ranks together: `SnapshotStore.write` on rank 0. Raises on all ranks what it raises."""
    written, _ = ranks.attempt(lambda: store.write(path, state, usage) if ranks.leads else None)
    return SnapshotRef.model_validate_json(ranks.tell(written.model_dump_json().encode() if written else b""))


def find_marker_together(store: Store, ranks: Ranks) -> tuple[str, str]:
    """All ranks together: the id of the marker that every rank sees, or "" and why not."""
    try:
        marker, _ = ranks.attempt(lambda: read_marker(store))
        said = ranks.tell(marker.id.encode()).decode()
        other = SnapshotError("this rank sees another snapshot store than rank 0")
        ranks.agree(None if said in marker.known() else other)
    except Exception as error:
        return "", outcome_of(error)[1]
    return said, ""
