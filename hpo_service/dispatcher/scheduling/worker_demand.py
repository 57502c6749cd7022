"""What the executor is asked for: workers for the studies that have work, and one for jobs."""

from collections.abc import Sequence

from hpo_service.core.study_rules import StudyState
from hpo_service.dispatcher.jobs.jobs import Jobs
from hpo_service.dispatcher.scheduling.quotas import Room
from hpo_service.dispatcher.state.live_studies import LiveStudy
from hpo_service.executors.base import Wanted
from hpo_service.executors.layout import base_of
from trainer.spec import TrainFinal

_ACTIVE = frozenset({StudyState.QUEUED, StudyState.RUNNING})


def wanted(studies: Sequence[LiveStudy], open_jobs: Jobs, left: Room) -> list[Wanted]:
    """By study in the given order, then for jobs: trainings want a worker of their own, the others any.

    What is not `left` of a project's quota is not wanted.
    """
    by_study = [_of(study, left) for study in studies if _works(study) and left.slices(study)]
    trainings = [
        _of_training(job.task)
        for job in open_jobs.values()
        if isinstance(job.task, TrainFinal)
        and (job.running or left.fits(job.project_id, job.task.trial.training.ranks, 0.0))
    ]
    others = any(not isinstance(job.task, TrainFinal) for job in open_jobs.values())
    return [*by_study, *trainings, *([Wanted()] if others else [])]


def _of(study: LiveStudy, left: Room) -> Wanted:
    """A study that waits for results wants no more than it has."""
    resolved = study.resolved
    return Wanted(
        ranks=resolved.training.ranks,
        slices=len(study.slices) if study.idle else left.slices(study),
        base=base_of(resolved.model, resolved.training),
    )


def _of_training(task: TrainFinal) -> Wanted:
    return Wanted(ranks=task.trial.training.ranks, base=base_of(task.trial.model, task.trial.training))


def _works(study: LiveStudy) -> bool:
    """Whether the study has slices on workers, or may have some next."""
    wants = study.state in _ACTIVE and study.searching and not study.idle and not study.awaits_check
    return bool(study.running()) or wants
