"""What only all trials of a study can tell, found once per change of the study and kept."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any, Generic, TypeVar

from sqlalchemy.orm import Session

from hpo_service.core.study_rules import TERMINAL
from hpo_service.storage.database.tenancy import confined_like
from hpo_service.storage.queries import events
from hpo_service.storage.tables import Study

log = logging.getLogger(__name__)

Found = TypeVar("Found")

_INFO = "insights of studies"
#: What took no longer is found anew at every change.
_QUICK_SECONDS = 0.05
#: What took longer stands for so many times as long, and is found anew behind the request that asks next.
_STANDS_FOR = 10.0
_MOST_STUDIES = 200


@dataclass(frozen=True, kw_only=True)
class _Known(Generic[Found]):
    """What was found after the study's event `change`; times by this process's clock."""

    change: int
    found: Found
    seconds: float
    at: float


class Insights:
    """Keeps what was found of each study under a name. Belongs to the sessions of one engine; safe in threads."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], _Known[Any]] = {}
        self._finding: set[tuple[int, str]] = set()
        self._lock = Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="insights")

    def get(self, session: Session, study: Study, name: str, read: Callable[[Session, Study], Found]) -> Found:
        """What `read` finds of the study now; of one that runs and has many trials, what it found a moment ago.

        Nobody waits for all trials to be read but the first who asks, and who asks for a study that has ended since.
        """
        change = events.last_id(session, study.project_id, study.id)
        known: _Known[Found] | None = self._known.get((study.id, name))
        if known is not None and known.change == change:
            return known.found
        if known is None or known.seconds < _QUICK_SECONDS or study.state in TERMINAL:
            return self._find(session, study, name, read, change)
        if time.monotonic() > known.at + _STANDS_FOR * known.seconds:
            self._find_behind(session, study, name, read)
        return known.found

    def _find(
        self, session: Session, study: Study, name: str, read: Callable[[Session, Study], Found], change: int
    ) -> Found:
        begun = time.monotonic()
        found = read(session, study)
        now = time.monotonic()
        with self._lock:
            self._known.pop((study.id, name), None)
            self._known[study.id, name] = _Known(change=change, found=found, seconds=now - begun, at=now)
            if len(self._known) > _MOST_STUDIES:
                del self._known[next(iter(self._known))]
        return found

    def _find_behind(self, session: Session, study: Study, name: str, read: Callable[[Session, Study], Found]) -> None:
        with self._lock:
            if (study.id, name) in self._finding:
                return
            self._finding.add((study.id, name))
        self._thread.submit(self._find_in_thread, confined_like(session, study.project_id), study.id, name, read)

    def _find_in_thread(
        self, confined: Session, study_id: int, name: str, read: Callable[[Session, Study], Found]
    ) -> None:
        try:
            with confined as session:
                study = session.get(Study, study_id)
                if study is not None and study.deleted_at is None:
                    change = events.last_id(session, study.project_id, study_id)
                    self._find(session, study, name, read, change)
        except Exception:  # the boundary of the thread: the next request tries again
            log.exception("the %s of study %d could not be found", name, study_id)
        finally:
            with self._lock:
                self._finding.discard((study_id, name))


def kept_insights() -> dict[str, Any]:
    """`info` of sessions: what they find is kept for all of them."""
    return {_INFO: Insights()}


def insights_of(session: Session) -> Insights:
    """Those that are kept for all sessions, else for this one alone."""
    kept = session.info.setdefault(_INFO, Insights())
    assert isinstance(kept, Insights)
    return kept
