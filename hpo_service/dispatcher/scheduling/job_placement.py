"""Which worker does which job next."""

from collections import Counter

from hpo_service.dispatcher.jobs.jobs import LiveJob
from hpo_service.dispatcher.scheduling.quotas import Room
from hpo_service.dispatcher.state.transaction import Context
from trainer.spec import TrainFinal


def planned(context: Context, left: Room) -> tuple[list[tuple[LiveJob, str]], list[tuple[LiveJob, str]]]:
    """Jobs with their workers, oldest first, and jobs that nobody can do, with the reason.

    A training takes a slot, or the next one that comes free, and what is `left` of its project's quota even while it
    waits for a worker; any other job runs beside the slices, one on a worker.
    """
    placed: list[tuple[LiveJob, str]] = []
    given_up: list[tuple[LiveJob, str]] = []
    slots, beside = Counter[str](), Counter[str]()
    for job in context.jobs.values():
        holder = context.fleet.holder(job.token) if job.running else None
        if holder is not None and not isinstance(job.task, TrainFinal):
            beside[holder] += 1
    for job in [job for job in context.jobs.values() if not job.running]:
        if (reason := _hopeless(context, job)) is not None:
            given_up.append((job, reason))
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
            placed.append((job, worker))
    return placed, given_up


def _worker(context: Context, job: LiveJob, taken: Counter[str]) -> str | None:
    work = job.next_attempt()
    if isinstance(job.task, TrainFinal):
        if context.faults.resting:
            return None
        chosen = context.executor.choose(work, prefetch=True, planned=taken)
    elif job.only_for is not None:
        chosen = None if taken[job.only_for] else job.only_for
    else:
        unfit = context.fleet.without(job.needs) if job.needs is not None else []
        chosen = context.executor.choose(work, prefetch=False, planned=taken + Counter(unfit))
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
