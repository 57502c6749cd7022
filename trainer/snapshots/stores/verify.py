"""Reading what a snapshot reference promises, without torch."""

from collections.abc import Sequence
from contextlib import ExitStack
from hashlib import sha256
from typing import IO

from pydantic import ValidationError

from trainer.common.errors import SnapshotError
from trainer.snapshots.stores.base import Store
from trainer.spec import SnapshotManifest, SnapshotRef


def verified_manifest(store: Store, ref: SnapshotRef) -> SnapshotManifest:
    """The manifest that was recorded.

    Raises:
        SnapshotError: it is missing or another one.
        OSError: the store does not answer.
    """
    content = store.manifest(ref.path)
    if sha256(content).hexdigest() != ref.digest:
        raise SnapshotError(f"snapshot {ref.path}: the manifest is not the one that was recorded")
    try:
        return SnapshotManifest.model_validate_json(content)
    except ValidationError as error:
        raise SnapshotError(f"snapshot {ref.path} cannot be understood: {error}") from error


def open_files(store: Store, ref: SnapshotRef, names: Sequence[str]) -> list[tuple[str, int, IO[bytes]]]:
    """(name, bytes, open file) of each, all of them verified. Raises as `verified_manifest` does."""
    files = verified_manifest(store, ref).files
    with ExitStack() as stack:
        opened = [(name, stack.enter_context(store.open(ref.path, files, name))) for name in names]
        stack.pop_all()
    return [(name, files[name].size_bytes, file) for name, file in opened]
