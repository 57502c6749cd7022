"""What the executor is asked for: workers for the studies that have work, and one for jobs."""

from collections.abc import Sequence

from hpo_service.dispatcher.jobs import Jobs
from hpo_service.dispatcher.memory import LiveStudy
from hpo_service.domain import StudyState
from hpo_service.executors.base import Wanted
from hpo_service.executors.layout import base_of

_ACTIVE = frozenset({StudyState.QUEUED, StudyState.RUNNING})


def wanted(studies: Sequence[LiveStudy], open_jobs: Jobs) -> list[Wanted]:
    """By study in the given order, then for jobs, which any worker does."""
    by_study = [_of(study) for study in studies if _works(study)]
    return [*by_study, Wanted()] if open_jobs else by_study


def _of(study: LiveStudy) -> Wanted:
    """A study that waits for results wants no more than it has."""
    resolved = study.resolved
    return Wanted(
        ranks=resolved.training.ranks,
        slices=len(study.slices) if study.idle else resolved.budget.max_parallel,
        base=base_of(resolved.model, resolved.training),
    )


def _works(study: LiveStudy) -> bool:
    """Whether the study has slices on workers, or may have some next."""
    wants = study.state in _ACTIVE and study.searching and not study.idle and not study.awaits_check
    return bool(study.running()) or wants
