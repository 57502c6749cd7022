"""Snapshots in an object store, through fsspec: S3 and what speaks like it, Google Cloud Storage, memory.

There is no rename. The files of a snapshot go to a folder of their own below its path, named by their digests; the
manifest, which decides what is read, is written last and replaced in one instant.
"""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from tempfile import SpooledTemporaryFile, TemporaryDirectory
from typing import IO, Any, cast

import fsspec

from trainer.common.errors import SnapshotError
from trainer.common.failpoints import Failpoint, reach
from trainer.snapshots.stores.base import LOG, MANIFEST, Contents, Files, LogFile, StoredSnapshot, require_known
from trainer.snapshots.stores.cleanup import LEFTOVER_SECONDS
from trainer.snapshots.stores.object_log import ObjectLog, tail
from trainer.spec import FileDigest

_CHUNK_BYTES = 8 << 20
_IN_MEMORY_BYTES = 32 << 20
#: parts of the path of a snapshot of a study: study, trial, rung, attempt (numbers) and its name
_PARTS = 5
#: An answer that takes longer than this is asked for again, a few times.
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 3}}}
}


class ObjectStore:
    """See `Store`. Credentials come from the environment."""

    def __init__(self, url: str) -> None:
        self.location = url
        scheme = url.partition("://")[0]
        options = {"use_listings_cache": False, **_OPTIONS.get(scheme, {})}
        self._files, root = fsspec.core.url_to_fs(url, **options)
        self._root: str = root.rstrip("/")

    def prepare(self) -> None:
        """A bucket is made by whoever pays for it."""

    def write(self, path: str, files: Mapping[str, bytes], manifest: bytes) -> None:
        folder = self._key(path)
        digests = {
            name: FileDigest(sha256=sha256(content).hexdigest(), size_bytes=len(content))
            for name, content in files.items()
        }
        inside = f"{folder}/{_folder_of(digests)}"
        before = self._list(folder)
        reach(Failpoint.SNAPSHOT_BEFORE_FILES)
        try:
            for name, content in files.items():
                self._put(f"{inside}/{name}", content)
                self._read_back(f"{inside}/{name}", digests[name].sha256)
        except BaseException:
            self._discard(folder, kept=before)
            raise
        reach(Failpoint.SNAPSHOT_BEFORE_MANIFEST)
        self._put(f"{folder}/{MANIFEST}", manifest)
        reach(Failpoint.SNAPSHOT_AFTER_RENAME)
        self._read_back(f"{folder}/{MANIFEST}", sha256(manifest).hexdigest())
        self._discard(folder, kept={f"{folder}/{MANIFEST}", *(f"{inside}/{name}" for name in files)})

    def manifest(self, path: str) -> bytes:
        return self._get(f"{self._key(path)}/{MANIFEST}")

    def read(self, path: str, files: Files, name: str) -> bytes:
        content = self._get(self._file_key(path, files, name))
        if sha256(content).hexdigest() != files[name].sha256:
            raise SnapshotError(f"snapshot file {path}/{name} is damaged")
        return content

    def open(self, path: str, files: Files, name: str) -> IO[bytes]:
        return self._open(self._file_key(path, files, name), path, files, name)

    def open_file(self, path: str, files: Files, name: str) -> IO[bytes]:
        if name not in files:
            raise SnapshotError(f"{path}/{name} is missing")
        return self._open(self._key(f"{path}/{name}"), path, files, name)

    @contextmanager
    def building(self, path: str, scratch: Path) -> Iterator[Path]:
        folder = self._key(path)
        with TemporaryDirectory(dir=scratch) as local:
            yield Path(local)
            try:
                for file in (entry for entry in Path(local).rglob("*") if entry.is_file()):
                    with self._answering():
                        self._files.put_file(str(file), f"{folder}/{file.relative_to(local).as_posix()}")
            except BaseException:
                self._discard(folder, kept=())
                raise

    @contextmanager
    def fetched(self, path: str, files: Files, scratch: Path) -> Iterator[Path]:
        with TemporaryDirectory(dir=scratch) as local:
            for name, expected in files.items():
                target = Path(local, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                digest = sha256()
                with target.open("xb") as copy:
                    for chunk in self._chunks(self._key(f"{path}/{name}")):
                        digest.update(chunk)
                        copy.write(chunk)
                if digest.hexdigest() != expected.sha256:
                    raise SnapshotError(f"{path}/{name} is damaged")
            yield Path(local)

    def _open(self, key: str, path: str, files: Files, name: str) -> IO[bytes]:
        digest, copy = sha256(), SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115
        for chunk in self._chunks(key):
            digest.update(chunk)
            copy.write(chunk)
        if digest.hexdigest() != files[name].sha256:
            copy.close()
            raise SnapshotError(f"snapshot file {path}/{name} is damaged")
        copy.seek(0)
        return cast("IO[bytes]", copy)

    def remove(self, path: str) -> None:
        folder = self._key(path)
        self._delete([f"{folder}/{MANIFEST}"])
        self._delete(list(self._list(folder)))

    def keep_only(self, path: str) -> None:
        final = self._key(path)
        rung = "/".join(final.split("/")[:-2])
        self._delete([key for key in self._list(rung) if not key.startswith(f"{final}/")])

    def snapshots_in(self, folder: str) -> Sequence[str]:
        paths = [self._path(key) for key in self._list(self._key(folder))]
        depth = len(folder.split("/")) + 2
        found = [path for path in paths if path.endswith(f"/{MANIFEST}") and len(path.split("/")) == depth]
        return sorted(path.removesuffix(f"/{MANIFEST}") for path in found)

    def look(self) -> Contents:
        snapshots, leftovers = [], []
        listed = [(self._path(key), about) for key, about in self._list(self._root).items()]
        ours = sorted((path, about) for path, about in listed if _is_of_a_snapshot(path))
        for path, group in groupby(ours, lambda item: "/".join(item[0].split("/")[:_PARTS])):
            members = list(group)
            if any(key == f"{path}/{MANIFEST}" for key, _ in members):
                size = sum(int(about.get("size") or 0) for _, about in members)
                snapshots.append(StoredSnapshot(path=path, size_bytes=size))
            elif all(_age_seconds(about) > LEFTOVER_SECONDS for _, about in members):
                leftovers.append(path)
        return Contents(snapshots=snapshots, leftovers=leftovers)

    def put(self, name: str, content: bytes) -> None:
        self._put(self._key(name), content)

    def get(self, name: str) -> bytes:
        return self._get(self._key(name))

    def open_log(self, folder: str) -> LogFile:
        parts = self._key(f"{folder}/{LOG}")
        return ObjectLog(self._put, parts, sum(int(about.get("size") or 0) for about in self._list(parts).values()))

    def log_tail(self, folder: str, most_bytes: int) -> bytes:
        return tail(self._get, sorted(self._list(self._key(f"{folder}/{LOG}"))), most_bytes)

    def _key(self, path: str) -> str:
        if any(part in ("", ".", "..") for part in path.split("/")):
            raise SnapshotError(f"snapshot path {path!r} leads outside the snapshot store")
        return f"{self._root}/{path}"

    def _path(self, key: str) -> str:
        return key.removeprefix(f"{self._root}/")

    def _file_key(self, path: str, files: Files, name: str) -> str:
        if require_known(name) not in files:
            raise SnapshotError(f"snapshot file {path}/{name} is missing")
        return f"{self._key(path)}/{_folder_of(files)}/{name}"

    def _put(self, key: str, content: bytes) -> None:
        with self._answering():
            self._files.pipe_file(key, content)

    def _get(self, key: str) -> bytes:
        with self._answering():
            content = self._files.cat_file(key)
        assert isinstance(content, bytes)
        return content

    def _chunks(self, key: str) -> Iterator[bytes]:
        with self._answering(), self._files.open(key, "rb", block_size=_CHUNK_BYTES) as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk

    def _read_back(self, key: str, expected: str) -> None:
        digest = sha256()
        for chunk in self._chunks(key):
            digest.update(chunk)
        if digest.hexdigest() != expected:
            raise SnapshotError(f"snapshot file {self._path(key)} does not read back as written: check the store")

    def _list(self, key: str) -> dict[str, dict[str, Any]]:
        """What the store says of every object below the key."""
        found: dict[str, dict[str, Any]] = {}
        with self._answering(), suppress(FileNotFoundError):
            found = self._files.find(key, detail=True)
        # A prefix is no folder: "1/2" is not below "1/23".
        return {name: about for name, about in found.items() if name.startswith(f"{key}/")}

    def _delete(self, keys: Sequence[str]) -> None:
        with self._answering(), suppress(FileNotFoundError):
            if keys:
                self._files.rm(list(keys))

    def _discard(self, folder: str, kept: Collection[str]) -> None:
        """What cannot be deleted now costs space only: it goes with the snapshot, or as a leftover."""
        with suppress(OSError, SnapshotError):
            self._delete([key for key in self._list(folder) if key not in kept])

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """An object that is missing is a SnapshotError; whatever else goes wrong an OSError."""
        try:
            yield
        except FileNotFoundError as error:
            raise SnapshotError(f"{self.location} has no such object: {error}") from error
        except (OSError, SnapshotError):
            raise
        except Exception as error:
            # Libraries of object stores raise errors of their own.
            raise OSError(f"the snapshot store {self.location} does not answer: {error}") from error


def _folder_of(files: Files) -> str:
    """Named by what is in it, so that two writes of the same path never mix."""
    listed = "\n".join(f"{name} {files[name].sha256}" for name in sorted(files))
    return sha256(listed.encode()).hexdigest()[:16]


def _is_of_a_snapshot(path: str) -> bool:
    parts = path.split("/")
    return len(parts) > _PARTS and all(part.isdigit() for part in parts[: _PARTS - 1])


def _age_seconds(about: Mapping[str, Any]) -> float:
    """By the store's clock; what does not say counts as new."""
    written = next((about[key] for key in ("LastModified", "mtime", "created") if about.get(key) is not None), None)
    if isinstance(written, str):
        written = datetime.fromisoformat(written)
    if isinstance(written, datetime):
        written = written.timestamp()
    return time.time() - written if isinstance(written, int | float) else 0.0
