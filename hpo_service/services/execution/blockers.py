"""Why a study does not go on, where that is for a person to mend."""

from sqlalchemy.orm import Session

from hpo_service.core.study_rules import StudyState
from hpo_service.storage.queries import workers
from hpo_service.storage.tables import DEFAULT_PROJECT_ID, Study

_WANTS_WORKERS = frozenset({StudyState.QUEUED, StudyState.RUNNING})


def standstill(session: Session, study: Study) -> str | None:
    """Which quarantined workers the study waits for; None if there are others, or if it wants none."""
    if StudyState(study.state) not in _WANTS_WORKERS:
        return None
    counts = workers.count_by_state(session, DEFAULT_PROJECT_ID)
    if counts.get(workers.READY) or counts.get(workers.DRAINING):
        return None
    reasons = [
        f"worker {worker.name} is quarantined: {worker.message} (once that is mended: hpo worker release {worker.name})"
        for worker in workers.quarantined(session)
    ]
    return f"no worker is left that could go on; {'; '.join(reasons)}" if reasons else None
