"""Identity of data on disk: a digest of the files' content, kept so that a huge file is read for it once."""

import hashlib
import json
import os
import tempfile
from functools import lru_cache
from pathlib import Path

from trainer.data.rows import RowError, data_files, unreadable

_FOLDER = "digests"


def data_digest(path: str, cache_dir: Path) -> str:
    """SHA-256 of a file, or over those of a folder's shards in their order.

    A file's digest is computed again only when its path, size, modification time or inode changes: this process
    remembers it, and so does `cache_dir` for every other.

    Raises:
        RowError: a file cannot be read, or changes while it is.
    """
    files = data_files(path)
    digests = [_file_digest(file, cache_dir) for file in files]
    if len(files) == 1 and files[0] == Path(path):
        return digests[0]
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()


def replace_file(path: Path, content: bytes) -> None:
    """Write a file such that readers see the old or the new one, never half of it. Raises OSError."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(content)
    os.replace(file.name, path)


def _file_digest(file: Path, cache_dir: Path) -> str:
    try:
        resolved = file.resolve()
        return _digest_of(str(resolved), _state(resolved), cache_dir)
    except OSError as error:
        raise unreadable(file, error) from error


def _state(file: Path) -> tuple[int, int, int]:
    stat = file.stat()
    return (stat.st_size, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=4096)
def _digest_of(path: str, state: tuple[int, int, int], cache_dir: Path) -> str:
    kept = cache_dir / _FOLDER / f"{hashlib.sha256(path.encode()).hexdigest()}.json"
    known = _read(kept)
    if known is not None and known.get("path") == path and known.get("state") == list(state):
        return str(known["sha256"])
    with Path(path).open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if _state(Path(path)) != state:
        raise RowError(path, 0, "it changed while it was read; start again once it is complete")
    kept.parent.mkdir(parents=True, exist_ok=True)
    replace_file(kept, json.dumps({"path": path, "state": state, "sha256": digest}).encode())
    return digest


def _read(path: Path) -> dict[str, object] | None:
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) and isinstance(value.get("sha256"), str) else None
