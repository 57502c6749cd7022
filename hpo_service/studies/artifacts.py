"""What a trial left on disk: its adapter and its log. Links are never followed; digests are checked before sending."""

import os
import stat
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import file_digest, sha256
from io import BufferedReader
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy.orm import Session

from hpo_service.errors import NotFound
from hpo_service.repository import attempts
from hpo_service.studies.trials import find_trial
from trainer.spec import FileDigest, SnapshotManifest, SnapshotRef

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_MANIFEST = "manifest.json"
_MAX_MANIFEST_BYTES = 1_048_576
_MAX_TAIL_BYTES = 4 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_BLOCK_BYTES = 512


class _Damaged(Exception):
    """A file is missing, no regular file, or not what was recorded."""


@dataclass(frozen=True)
class Archive:
    """A tar file that is made while it is sent."""

    files: Sequence[tuple[str, int, BufferedReader]]
    examples_seen: int

    @property
    def size_bytes(self) -> int:
        """Length of the whole archive."""
        return sum(_BLOCK_BYTES + _padded(size) for _, size, _ in self.files) + 2 * _BLOCK_BYTES

    def chunks(self) -> Iterator[bytes]:
        """The archive; the files are closed at its end."""
        with ExitStack() as stack:
            for _, _, file in self.files:
                stack.enter_context(file)
            for name, size, file in self.files:
                header = tarfile.TarInfo(name)
                header.size, header.mode = size, 0o644
                yield header.tobuf(tarfile.USTAR_FORMAT)
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk
                yield bytes(_padded(size) - size)
            yield bytes(2 * _BLOCK_BYTES)


def find_snapshots(session: Session, project_id: int, name: str, number: int) -> list[SnapshotRef]:
    """Snapshots of a trial, newest first. Raises NotFound."""
    study, _ = find_trial(session, project_id, name, number)
    known = attempts.snapshots_of_trial(session, project_id, study.id, number)
    if not known:
        raise NotFound(f"trial {number} of study {name!r} has no snapshot yet.")
    return [SnapshotRef.model_validate(snapshot) for snapshot in known]


def open_adapter(snapshots: Sequence[SnapshotRef], root: Path) -> Archive:
    """The adapter of the newest snapshot that is whole. Raises NotFound if none is."""
    for snapshot in snapshots:
        try:
            return _open_adapter(snapshot, root)
        except _Damaged:
            continue
    raise NotFound("no snapshot of this trial is whole any more.")


def find_log(session: Session, project_id: int, name: str, number: int, root: Path) -> Path:
    """Where the log of a trial is, or will be. Raises NotFound."""
    study, trial = find_trial(session, project_id, name, number)
    return root / str(study.id) / str(trial.row.trial_id) / "log.jsonl"


def read_tail(path: Path, lines: int) -> bytes:
    """The last lines of a log; nothing if there is none yet."""
    try:
        with _open(path) as file:
            size = os.fstat(file.fileno()).st_size
            start = max(0, size - _MAX_TAIL_BYTES)
            file.seek(start)
            content = file.read(_MAX_TAIL_BYTES)
    except _Damaged:
        return b""
    found = content.splitlines(keepends=True)
    return b"".join((found[1:] if start else found)[-lines:])


def _open_adapter(snapshot: SnapshotRef, root: Path) -> Archive:
    folder = _folder(root, snapshot.path)
    with _open(folder / _MANIFEST) as file:
        content = file.read(_MAX_MANIFEST_BYTES)
    if sha256(content).hexdigest() != snapshot.digest:
        raise _Damaged
    try:
        recorded = SnapshotManifest.model_validate_json(content).files
    except ValidationError as error:
        raise _Damaged from error
    with ExitStack() as stack:
        files = []
        for name in ADAPTER_FILES:
            file = stack.enter_context(_open(folder / name))
            _verify(file, recorded.get(name))
            files.append((name, recorded[name].size_bytes, file))
        stack.pop_all()
    return Archive(files, snapshot.examples_seen)


def _verify(file: BufferedReader, recorded: FileDigest | None) -> None:
    if recorded is None or os.fstat(file.fileno()).st_size != recorded.size_bytes:
        raise _Damaged
    if file_digest(file, "sha256").hexdigest() != recorded.sha256:
        raise _Damaged
    file.seek(0)


def _folder(root: Path, path: str) -> Path:
    folder = root
    for part in path.split("/"):
        folder = folder / part
        if part in ("", ".", "..") or folder.is_symlink():
            raise _Damaged
    return folder


def _open(path: Path) -> BufferedReader:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _Damaged from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _Damaged
    return os.fdopen(descriptor, "rb")


def _padded(size: int) -> int:
    return -(-size // _BLOCK_BYTES) * _BLOCK_BYTES
