"""Snapshots in a folder, of this machine or shared by all. Links are never followed."""

import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import file_digest, sha256
from io import BufferedReader
from pathlib import Path
from typing import IO

from trainer.common.errors import SnapshotError
from trainer.common.failpoints import Failpoint, reach
from trainer.snapshots.stores import cleanup
from trainer.snapshots.stores.base import LOG, MANIFEST, Contents, Files, LogFile, require_known
from trainer.spec import FileDigest


class FolderStore:
    """See `Store`. A snapshot is written beside its place and renamed, files synced first, manifest last."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self.location = str(self._root)

    def prepare(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True)

    def write(self, path: str, files: Mapping[str, bytes], manifest: bytes) -> None:
        target = self._inside(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.parent / f"{cleanup.PARTIAL}{uuid.uuid4().hex}"
        partial.mkdir()
        try:
            reach(Failpoint.SNAPSHOT_BEFORE_FILES)
            written = {name: _write(partial / name, content) for name, content in files.items()}
            reach(Failpoint.SNAPSHOT_BEFORE_MANIFEST)
            written[MANIFEST] = _write(partial / MANIFEST, manifest)
            _sync(partial)
            for name, expected in written.items():
                _read_back(partial / name, expected)
            reach(Failpoint.SNAPSHOT_BEFORE_RENAME)
            _replace(partial, target)
            reach(Failpoint.SNAPSHOT_AFTER_RENAME)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def manifest(self, path: str) -> bytes:
        return _read(self._inside(path) / MANIFEST)

    def read(self, path: str, files: Files, name: str) -> bytes:
        content = _read(self._inside(path) / require_known(name))
        expected = files.get(name)
        if expected is None or len(content) != expected.size_bytes or sha256(content).hexdigest() != expected.sha256:
            raise SnapshotError(f"snapshot file {path}/{name} is damaged")
        return content

    def open(self, path: str, files: Files, name: str) -> IO[bytes]:
        return self.open_file(path, files, require_known(name))

    def open_file(self, path: str, files: Files, name: str) -> IO[bytes]:
        file = _open(self._inside(f"{path}/{name}"))
        try:
            if not _holds(file, files.get(name)):
                raise SnapshotError(f"snapshot file {path}/{name} is damaged")
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    def remove(self, path: str) -> None:
        cleanup.remove(self._inside(path), self._root)

    def keep_only(self, path: str) -> None:
        final = self._inside(path)
        attempt, rung = final.parent, final.parent.parent
        for folder, kept in ((rung, attempt), (attempt, final)):
            for entry in folder.iterdir() if folder.is_dir() else ():
                if entry != kept:
                    cleanup.remove(entry, self._root)

    def snapshots_in(self, folder: str) -> Sequence[str]:
        found = sorted(self._inside(folder).glob(f"*/{MANIFEST}"))
        return [path.parent.relative_to(self._root).as_posix() for path in found]

    def look(self) -> Contents:
        return cleanup.look(self._root)

    @contextmanager
    def building(self, path: str, scratch: Path) -> Iterator[Path]:
        target = self._inside(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.parent / f"{cleanup.PARTIAL}{uuid.uuid4().hex}"
        partial.mkdir()
        try:
            yield partial
            for entry in partial.rglob("*"):
                _sync(entry)
            _sync(partial)
            _replace(partial, target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    @contextmanager
    def fetched(self, path: str, files: Files, scratch: Path) -> Iterator[Path]:
        for name in files:
            self.open_file(path, files, name).close()
        yield self._inside(path)

    def put(self, name: str, content: bytes) -> None:
        self.prepare()
        partial = self._root / f"{cleanup.PARTIAL}{uuid.uuid4().hex}"
        try:
            _write(partial, content)
            partial.replace(self._inside(name))
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        _sync(self._root)

    def get(self, name: str) -> bytes:
        return _read(self._inside(name))

    def open_log(self, folder: str) -> LogFile:
        path = self._inside(folder) / LOG
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        return os.fdopen(descriptor, "ab")

    def log_tail(self, folder: str, most_bytes: int) -> bytes:
        try:
            with _open(self._inside(folder) / LOG) as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - most_bytes))
                return file.read(most_bytes)
        except SnapshotError:
            return b""

    def _inside(self, path: str) -> Path:
        target = self._root
        for part in path.split("/"):
            target = target / part
            if part in ("", ".", "..") or target.is_symlink():
                raise SnapshotError(f"snapshot path {path!r} leads outside the snapshot folder")
        return target


def _write(path: Path, content: bytes) -> FileDigest:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return FileDigest(sha256=sha256(content).hexdigest(), size_bytes=len(content))


def _open(path: Path) -> BufferedReader:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SnapshotError(f"snapshot file {path.parent.name}/{path.name} is not a regular file")
    return os.fdopen(descriptor, "rb")


def _read(path: Path) -> bytes:
    with _open(path) as file:
        try:
            return file.read()
        except OSError as error:
            raise _unreadable(path, error) from error


def _holds(file: BufferedReader, expected: FileDigest | None) -> bool:
    if expected is None or os.fstat(file.fileno()).st_size != expected.size_bytes:
        return False
    try:
        return file_digest(file, "sha256").hexdigest() == expected.sha256
    except OSError:
        return False


def _unreadable(path: Path, error: OSError) -> SnapshotError:
    return SnapshotError(f"snapshot file {path.parent.name}/{path.name} cannot be read: {error.strerror}")


def _read_back(path: Path, expected: FileDigest) -> None:
    """Raises SnapshotError unless the disk, and not only the page cache, holds the file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        if file_digest(file, "sha256").hexdigest() != expected.sha256:
            raise SnapshotError(f"snapshot file {path.name} does not read back as it was written: check the disk")


def _replace(partial: Path, target: Path) -> None:
    aside = target.parent / f"{cleanup.ASIDE}{uuid.uuid4().hex}"
    try:
        target.rename(aside)
    except FileNotFoundError:
        partial.rename(target)
    else:
        partial.rename(target)
        shutil.rmtree(aside, ignore_errors=True)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
