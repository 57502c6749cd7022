"""An artifact of a delivery, unpacked: each file is checked against the digest that the service told."""

import io
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import IO

from hpo_service.core.errors import InvalidRequest, SetupError

_CHUNK_BYTES = 1 << 20


def require_new(folder: Path) -> None:
    """Raises InvalidRequest if there is something already, or no folder to put it in."""
    if folder.exists():
        raise InvalidRequest(f"{folder} exists already; name a new folder.")
    if not folder.absolute().parent.is_dir():
        raise InvalidRequest(f"{folder.absolute().parent} is no folder; make it first.")


def unpack(chunks: Iterator[bytes], files: Mapping[str, str], folder: Path) -> None:
    """Make `folder` of a tar file that comes in pieces: all of it or nothing. `files` are SHA-256 by name.

    Raises:
        SetupError: the folder cannot be written, or what came is not what was told.
    """
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        found = _written(chunks, files, partial)
        if found != dict(files):
            wrong = sorted(name for name in files if found.get(name) != files[name])
            raise SetupError(f"{', '.join(wrong)}: not what the service told; nothing was written. Fetch it again.")
        partial.rename(folder)
    except (OSError, tarfile.TarError) as error:
        raise SetupError(f"{folder} was not written: {error}. Fetch it again.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _written(chunks: Iterator[bytes], files: Mapping[str, str], folder: Path) -> dict[str, str]:
    found = {}
    with tarfile.open(fileobj=_Stream(chunks), mode="r|") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.name in files and _is_inside(member.name) else None
            if content is None:
                raise SetupError(f"the service sent {member.name[:80]!r}, which it did not tell; nothing was written.")
            found[member.name] = _copy(content, folder / member.name)
    return found


def _copy(content: IO[bytes], target: Path) -> str:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = sha256()
    with content, target.open("wb") as file:
        while chunk := content.read(_CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


class _Stream(io.RawIOBase):
    """What comes in pieces, as a file that is read once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._left = chunk
        taken, self._left = self._left[:size], self._left[size:]
        return taken
