"""Removing snapshots that nothing will read again, off the loop and after the commit that made them useless."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from sqlalchemy.exc import DBAPIError

from hpo_service.dispatcher.snapshots.retention import StudyNeeds, superfluous
from trainer.common.errors import SnapshotError
from trainer.common.failpoints import Failpoint, reach
from trainer.snapshots.stores import Store

log = logging.getLogger(__name__)

_SWEEP_EVERY_SECONDS = 600.0
_SWEEP_AFTER_DELETION_SECONDS = 30.0

Needs = Callable[[], Mapping[int, StudyNeeds]]


class Tidying:
    """Deletes in the snapshot store only. A failure is logged: what stays costs space, nothing else."""

    def __init__(self, store: Store, needs: Needs = dict, max_bytes: int | None = None) -> None:
        """`needs` is asked on another thread; see `retention`."""
        self._store = store
        self._needs = needs
        self._max_bytes = max_bytes
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tidying")
        self._sweep: Future[None] | None = None
        self._left: Mapping[int, int] | None = None
        self._swept_at = float("-inf")
        self._pause_seconds = _SWEEP_EVERY_SECONDS

    def keep_only(self, final: str) -> None:
        """A slice or step is done and this is what it left: whatever else it and other attempts left is useless now."""
        self._pool.submit(self._keep_only, final)

    def study_deleted(self, study_id: int) -> None:
        """Nothing of the study is needed any more."""
        self._pool.submit(self._remove, str(study_id))
        self._pause_seconds = _SWEEP_AFTER_DELETION_SECONDS

    def sweep_if_due(self) -> None:
        """Every ten minutes, and soon after a study was deleted, look at all that is stored; returns at once."""
        waiting = self._sweep is not None and not self._sweep.done()
        if not waiting and time.monotonic() - self._swept_at >= self._pause_seconds:
            self._swept_at, self._pause_seconds = time.monotonic(), _SWEEP_EVERY_SECONDS
            self._sweep = self._pool.submit(self._sweep_all)

    def take_left(self) -> Mapping[int, int] | None:
        """Bytes of the snapshots of each study after the last sweep; None if there was none since the last call."""
        left, self._left = self._left, None
        return left

    def close(self) -> None:
        """Finish what was asked for."""
        self._pool.shutdown(wait=True)

    def _sweep_all(self) -> None:
        try:
            # In this order: what is written after the look is not in it, and what is in it is judged by newer facts.
            found = self._store.look()
            needs = self._needs() if found.snapshots else {}
        except (OSError, DBAPIError) as error:
            log.warning("old snapshots stay for now: %s", str(error).splitlines()[0])
            return
        for leftover in found.leftovers:
            self._remove(leftover)
        gone = superfluous(found.snapshots, needs, self._max_bytes)
        for snapshot in gone:
            self._remove(snapshot.path)
        by_study = Counter[int]()
        for snapshot in found.snapshots:
            by_study[snapshot.study_id] += snapshot.size_bytes
        for snapshot in gone:
            by_study[snapshot.study_id] -= snapshot.size_bytes
        self._left = by_study
        left_bytes = by_study.total()
        if gone:
            log.info("removed %d snapshots that nothing needs; %d bytes are left", len(gone), left_bytes)
        if self._max_bytes is not None and left_bytes > self._max_bytes:
            log.warning(
                "%d bytes of snapshots are needed and HPO_SNAPSHOT_MAX_BYTES is %d", left_bytes, self._max_bytes
            )

    def _keep_only(self, path: str) -> None:
        reach(Failpoint.TIDY_BEFORE_REMOVE)
        try:
            self._store.keep_only(path)
        except (OSError, SnapshotError) as error:
            log.warning("snapshots beside %s stay: %s", path, error)

    def _remove(self, path: str) -> None:
        try:
            self._store.remove(path)
        except (OSError, SnapshotError) as error:
            log.warning("old snapshots at %s stay: %s", path, error)
