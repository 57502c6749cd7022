"""Which worker does which job next."""

from collections import Counter
from dataclasses import dataclass, field

from hpo_service.dispatcher.jobs.jobs import Jobs, LiveJob
from hpo_service.dispatcher.scheduling import study_dtype
from hpo_service.dispatcher.scheduling.quotas import Room
from hpo_service.dispatcher.state.transaction import Context
from trainer.spec import CheckData, TrainFinal


@dataclass(kw_only=True)
class PlannedJobs:
    """Jobs with their workers; jobs that nobody can do, with the reason; checks that nobody wants any more; running
    checks that are to stop, because nobody wants them or because a study's own waits for their place.
    """

    placed: list[tuple[LiveJob, str]] = field(default_factory=list)
    given_up: list[tuple[LiveJob, str]] = field(default_factory=list)
    unwanted: list[LiveJob] = field(default_factory=list)
    stopped: list[LiveJob] = field(default_factory=list)


def planned(context: Context, left: Room) -> PlannedJobs:
    """Oldest first, but checks that no study waits for after all others.

    A training takes a slot, or the next one that comes free, and what is `left` of its project's quota even while it
    waits for a worker; any other job runs beside the slices, one on a worker.
    """
    aside = _asked_by_keys(context)
    plan = PlannedJobs(
        unwanted=[job for job in aside.values() if not (job.callers or job.running)],
        stopped=[job for job in aside.values() if job.running and not job.callers],
    )
    slots, beside = Counter[str](), Counter[str]()
    for job in context.jobs.values():
        holder = context.fleet.holder(job.token) if job.running else None
        if holder is not None and not isinstance(job.task, TrainFinal):
            beside[holder] += 1
    ending = {job.id for job in (*plan.unwanted, *plan.stopped)}
    waiting = [job for job in context.jobs.values() if not job.running and job.id not in ending]
    in_the_way = [job for job in aside.values() if job.running and job.id not in ending]
    for job in sorted(waiting, key=lambda job: job.id in aside):
        if (reason := _hopeless(context, job)) is not None:
            plan.given_up.append((job, reason))
            continue
        if isinstance(job.task, TrainFinal):
            ranks = job.task.trial.training.ranks
            if not left.fits(job.project_id, ranks, 0.0):
                continue
            left.take(job.project_id, ranks, 0.0)
        taken = slots if isinstance(job.task, TrainFinal) else beside
        worker = _worker(context, job, taken)
        if worker is not None:
            taken[worker] += 1
            plan.placed.append((job, worker))
        elif isinstance(job.task, CheckData) and job.id not in aside and in_the_way:
            plan.stopped.append(in_the_way.pop(0))
    plan.stopped = [job for job in plan.stopped if not job.stop_sent]
    return plan


def _asked_by_keys(context: Context) -> Jobs:
    """Checks that keys asked for by themselves, and that no study waits for."""
    awaited = {study.check_job_id for study in (context.studies or {}).values()}
    return {job.id: job for job in context.jobs.values() if job.for_callers and job.id not in awaited}


def _worker(context: Context, job: LiveJob, taken: Counter[str]) -> str | None:
    work = job.next_attempt()
    if isinstance(job.task, TrainFinal):
        if context.faults.resting:
            return None
        unfit = study_dtype.others(context.fleet, job.task.trial.model) if job.task.dtype_pinned else ()
        chosen = context.executor.choose(work, prefetch=True, planned=taken, without=unfit)
    elif job.only_for is not None:
        chosen = None if taken[job.only_for] else job.only_for
    else:
        lacking = context.fleet.without(job.needs) if job.needs is not None else []
        chosen = context.executor.choose(work, prefetch=False, planned=taken, without=lacking)
    return chosen if chosen in context.fleet.worker_ids else None


def _hopeless(context: Context, job: LiveJob) -> str | None:
    """Why the job will never be done; None if it may be."""
    executor, fleet, task = context.executor, context.fleet, job.task
    if job.only_for is not None and job.only_for not in fleet.worker_ids:
        return f"worker {job.only_for} is gone"
    if not isinstance(task, TrainFinal):
        return None
    ranks, needed = task.trial.training.ranks, task.later_needs
    if ranks > executor.largest_group:
        return (
            f"the promoted trial needs {ranks} devices and the {executor.name} executor has {executor.largest_group}; "
            f"give the dispatcher more ({executor.devices_setting})"
        )
    if needed is not None and fleet.lacks(needed):
        return f"none of the {len(fleet.worker_ids)} workers has {needed}, which a later step needs; install it there"
    return None
