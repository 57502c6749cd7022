"""What lies in a folder of snapshots, and removing it."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from trainer.snapshots.stores.base import MANIFEST, Contents, StoredSnapshot

#: beginnings of names that a writer gives what is not yet, or no longer, a snapshot
PARTIAL, ASIDE = ".partial-", ".aside-"
#: no writer works on a snapshot for so long
LEFTOVER_SECONDS = 3600.0
#: parts of the path of a rung, above which folders stay even if they are empty
_RUNG_PARTS = 3


def remove(path: Path, root: Path) -> None:
    """Delete the folder below `root`, and its attempt's and rung's if they are empty then. A link stays."""
    if path.is_symlink() or not path.is_dir():
        return
    shutil.rmtree(path)
    for parent in list(path.parents)[:2]:
        if len(parent.relative_to(root).parts) >= _RUNG_PARTS:
            with suppress(OSError):
                parent.rmdir()


def look(root: Path) -> Contents:
    """Snapshots of studies, and what writers left behind long ago. Folders of another form are not looked at."""
    snapshots, leftovers = [], []
    for folder in _attempts(root):
        for entry in os.scandir(folder):
            if not entry.is_dir(follow_symlinks=False):
                continue
            path = Path(entry.path).relative_to(root).as_posix()
            if entry.name.startswith((PARTIAL, ASIDE)):
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > LEFTOVER_SECONDS:
                    leftovers.append(path)
            elif Path(entry.path, MANIFEST).is_file():
                snapshots.append(StoredSnapshot(path=path, size_bytes=_size_bytes(entry.path)))
    return Contents(snapshots=snapshots, leftovers=leftovers)


def _attempts(root: Path) -> Iterator[Path]:
    """Every <study>/<trial>/<rung>/<attempt>, all of them numbers; links are not followed."""
    folders = [root]
    for _ in range(4):
        folders = [
            Path(entry.path)
            for folder in folders
            if folder.is_dir()
            for entry in os.scandir(folder)
            if entry.name.isdigit() and entry.is_dir(follow_symlinks=False)
        ]
    yield from folders


def _size_bytes(folder: str) -> int:
    return sum(entry.stat(follow_symlinks=False).st_size for entry in os.scandir(folder))
