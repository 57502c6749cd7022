"""Removing snapshots that nothing will read again, off the loop and after the commit that made them useless."""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from hpo_service.dispatcher.retention import StoredSnapshot, StudyNeeds, superfluous
from trainer.failpoints import Failpoint, reach
from trainer.spec import SnapshotRef

log = logging.getLogger(__name__)

_SWEEP_EVERY_SECONDS = 600.0
#: what a writer that was killed leaves behind; none works on one for so long
_LEFTOVER_SECONDS = 3600.0
_LEFTOVERS = (".partial-", ".aside-")
_MANIFEST = "manifest.json"

Needs = Callable[[], Mapping[int, StudyNeeds]]


class Tidying:
    """Deletes below the snapshot root only. A failure is logged: what stays costs disk space, nothing else."""

    def __init__(self, root: Path, needs: Needs = dict, max_bytes: int | None = None) -> None:
        """`needs` is asked on another thread; see `retention`."""
        self._root = root.resolve()
        self._needs = needs
        self._max_bytes = max_bytes
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tidying")
        self._sweep: Future[None] | None = None
        self._swept_at = float("-inf")

    def rung_reached(self, final: SnapshotRef) -> None:
        """The slice is done: its checkpoints, and whatever other attempts at it left, are useless now."""
        self._pool.submit(self._keep_only, self._root / final.path)

    def study_deleted(self, study_id: int) -> None:
        """Nothing of the study is needed any more."""
        self._pool.submit(self._remove, self._root / str(study_id))

    def sweep_if_due(self) -> None:
        """Every ten minutes, look at all that is stored; returns at once."""
        waiting = self._sweep is not None and not self._sweep.done()
        if not waiting and time.monotonic() - self._swept_at >= _SWEEP_EVERY_SECONDS:
            self._swept_at = time.monotonic()
            self._sweep = self._pool.submit(self._sweep_all)

    def close(self) -> None:
        """Finish what was asked for."""
        self._pool.shutdown(wait=True)

    def _sweep_all(self) -> None:
        try:
            # In this order: what is written after the look is not in it, and what is in it is judged by newer facts.
            stored, leftovers = _look(self._root)
            needs = self._needs() if stored else {}
        except (OSError, DBAPIError) as error:
            log.warning("old snapshots stay for now: %s", str(error).splitlines()[0])
            return
        for leftover in leftovers:
            self._remove(leftover)
        gone = superfluous(stored, needs, self._max_bytes)
        for snapshot in gone:
            self._remove(self._root / snapshot.path)
            for folder in list((self._root / snapshot.path).parents)[:2]:
                with suppress(OSError):
                    folder.rmdir()
        left = sum(snapshot.size_bytes for snapshot in stored) - sum(snapshot.size_bytes for snapshot in gone)
        if gone:
            log.info("removed %d snapshots that nothing needs; %d bytes are left", len(gone), left)
        if self._max_bytes is not None and left > self._max_bytes:
            log.warning("%d bytes of snapshots are needed and HPO_SNAPSHOT_MAX_BYTES is %d", left, self._max_bytes)

    def _keep_only(self, final: Path) -> None:
        """`final` is <study>/<trial>/<rung>/<attempt>/<snapshot> below the root."""
        reach(Failpoint.TIDY_BEFORE_REMOVE)
        attempt, rung = final.parent, final.parent.parent
        for folder, kept in ((rung, attempt), (attempt, final)):
            if folder.is_dir():
                for entry in folder.iterdir():
                    if entry != kept:
                        self._remove(entry)

    def _remove(self, path: Path) -> None:
        if not path.resolve().is_relative_to(self._root) or not path.is_dir():
            return
        try:
            shutil.rmtree(path)
        except OSError as error:
            log.warning("old snapshots at %s stay: %s", path, error)


def _look(root: Path) -> tuple[list[StoredSnapshot], list[Path]]:
    """Snapshots of studies, and what writers left behind long ago. Folders of another form are not looked at."""
    stored, leftovers = [], []
    for folder in _attempts(root):
        for entry in os.scandir(folder):
            if not entry.is_dir(follow_symlinks=False):
                continue
            if entry.name.startswith(_LEFTOVERS):
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > _LEFTOVER_SECONDS:
                    leftovers.append(Path(entry.path))
            elif Path(entry.path, _MANIFEST).is_file():
                path = Path(entry.path).relative_to(root).as_posix()
                stored.append(StoredSnapshot(path=path, size_bytes=_size_bytes(entry.path)))
    return stored, leftovers


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
