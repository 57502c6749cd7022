"""What every snapshot store promises, whatever it keeps files on."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from trainer.common.errors import SnapshotError
from trainer.spec import FileDigest

MANIFEST = "manifest.json"
ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
OPTIMIZER = "optimizer.safetensors"
EVAL_LOSSES = "eval_losses.safetensors"
#: every file that a snapshot may have beside its manifest
FILES = (ADAPTER, ADAPTER_CONFIG, OPTIMIZER, EVAL_LOSSES)
LOG = "log.jsonl"

Files = Mapping[str, FileDigest]
"""The files of a snapshot by name, as its manifest lists them."""


@dataclass(frozen=True, kw_only=True)
class StoredSnapshot:
    """A folder <study>/<trial>/<rung>/<attempt>/<name> of the store."""

    path: str
    size_bytes: int

    @property
    def study_id(self) -> int:
        """The first part of the path."""
        return int(self.path.split("/")[0])

    @property
    def rung(self) -> str:
        """The folder of its slice."""
        return "/".join(self.path.split("/")[:3])


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Snapshots of studies, and paths of what writers that were killed left behind long ago."""

    snapshots: Sequence[StoredSnapshot]
    leftovers: Sequence[str]


class LogFile(Protocol):
    """The log of a trial, open at its end."""

    def tell(self) -> int:
        """How many bytes the trial's log has."""

    def write(self, line: bytes, /) -> object:
        """Append a line."""

    def flush(self) -> None:
        """Let others see the lines soon."""

    def close(self) -> None:
        """Let others see all lines."""


class Store(Protocol):
    """Snapshots and artifacts by path, `/`-separated and relative. Nothing outside is touched, whatever a path says.

    An artifact is a folder of any files, which whoever made it knows by name and digest: a delivered model.

    Contract (tests/contracts/trainer/snapshots/stores/test_snapshot_store.py): a snapshot that can be seen is whole. A
    path that leads outside and a file that is missing or not what was recorded raise SnapshotError, a store that does
    not answer OSError.
    """

    location: str
    """An absolute path or a URL; it holds no secret."""

    def prepare(self) -> None:
        """Make the store usable if it is new."""

    def write(self, path: str, files: Mapping[str, bytes], manifest: bytes) -> None:
        """Write a snapshot; what an earlier run of the same attempt left there is replaced, in one instant.

        All is read back; until the manifest is there, the path holds what it held before, also after an exception.
        """

    def manifest(self, path: str) -> bytes:
        """The manifest of a snapshot, unverified."""

    def read(self, path: str, files: Files, name: str) -> bytes:
        """A file of a snapshot, verified."""

    def open(self, path: str, files: Files, name: str) -> IO[bytes]:
        """A file of a snapshot, verified, to be read from its start."""

    def remove(self, path: str) -> None:
        """Delete a snapshot or a folder of snapshots; one that is gone already is no error."""

    def keep_only(self, path: str) -> None:
        """Delete whatever else is in the folder <study>/<trial>/<rung> of this snapshot."""

    def snapshots_in(self, folder: str) -> Sequence[str]:
        """Paths of the snapshots directly in a folder, sorted."""

    def look(self) -> Contents:
        """All there is. Folders of another form than a snapshot's are not looked at."""

    def building(self, path: str, scratch: Path) -> AbstractContextManager[Path]:
        """An empty local folder, whose files are the artifact at `path` once the block has ended well.

        It lies in `scratch` where the store is no folder. Raises OSError if the store is full or does not answer; then,
        and after an exception in the block, nothing is there.
        """

    def fetched(self, path: str, files: Files, scratch: Path) -> AbstractContextManager[Path]:
        """A local folder with these files of an artifact, verified. It is read only, and may lie in the store."""

    def open_file(self, path: str, files: Files, name: str) -> IO[bytes]:
        """A file of an artifact, verified, to be read from its start."""

    def put(self, name: str, content: bytes) -> None:
        """Write or replace a small file at the top of the store, in one instant."""

    def get(self, name: str) -> bytes:
        """A small file at the top of the store."""

    def open_log(self, folder: str) -> LogFile:
        """The log of the trial whose snapshots are in this folder, to append to it."""

    def log_tail(self, folder: str, most_bytes: int) -> bytes:
        """At most so many bytes from the end of that log; nothing if there is none yet."""


def require_known(name: str) -> str:
    """The name, if a snapshot may have such a file. Raises SnapshotError."""
    if name not in FILES:
        raise SnapshotError(f"{name!r} is no file of a snapshot")
    return name
