"""Removing snapshots that nothing will read again, off the loop and after the commit that made them useless."""

import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from trainer.spec import SnapshotRef

log = logging.getLogger(__name__)


class Tidying:
    """Deletes below the snapshot root only. A failure is logged: what stays costs disk space, nothing else."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tidying")

    def rung_reached(self, final: SnapshotRef) -> None:
        """The slice is done: its checkpoints, and whatever other attempts at it left, are useless now."""
        self._pool.submit(self._keep_only, self._root / final.path)

    def study_deleted(self, study_id: int) -> None:
        """Nothing of the study is needed any more."""
        self._pool.submit(self._remove, self._root / str(study_id))

    def close(self) -> None:
        """Finish what was asked for."""
        self._pool.shutdown(wait=True)

    def _keep_only(self, final: Path) -> None:
        """`final` is <study>/<trial>/<rung>/<attempt>/<snapshot> below the root."""
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
