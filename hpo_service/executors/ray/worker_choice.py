"""Which worker takes a piece of work: the least loaded of those that fit, rather one that has its trial or base."""

from collections.abc import Collection, Mapping

from hpo_service.executors.base import Work
from hpo_service.executors.layout import base_of
from hpo_service.executors.ray.remote_worker import RemoteWorker
from trainer.spec import Job, Slice


class Choice:
    """Looks at `workers`, which others change. One slice beyond the `slots` of a worker may wait beside it."""

    def __init__(self, workers: Mapping[str, RemoteWorker], slots: int) -> None:
        self._workers = workers
        self._slots = slots
        self._last_worker: dict[str, str] = {}

    def free_slots(self, prefetch: bool, ranks: int, without: Collection[str]) -> int:
        """How many more slices the ready workers of so many ranks would take, those in `without` left out."""
        return sum(self._room(worker, prefetch) for worker in self._ready(ranks) if worker.name not in without)

    def choose(self, work: Work, prefetch: bool, planned: Mapping[str, int], without: Collection[str]) -> str | None:
        """See `Executor.choose`."""
        if isinstance(work, Job):
            idle = (worker.name for worker in self._ready() if not worker.jobs)
            return next((name for name in idle if not (planned.get(name) or name in without)), None)
        suitable = [worker for worker in self._ready(work.trial.training.ranks) if worker.name not in without]
        loads = {worker.name: len(worker.slices) + planned.get(worker.name, 0) for worker in suitable}
        free = [
            worker
            for worker in suitable
            if (not loads[worker.name] if work.alone else self._room(worker, prefetch) > planned.get(worker.name, 0))
        ]
        home = self._last_worker.get(_trial_of(work))
        base = base_of(work.trial.model, work.trial.training)
        # Rather where the trial was, else where its base is, else where none is yet.
        chosen = min(
            free,
            key=lambda one: (loads[one.name], one.name != home, one.base != base, one.base != ""),
            default=None,
        )
        return None if chosen is None else chosen.name

    def note(self, work: Slice, worker: str) -> None:
        """The slice goes there."""
        self._last_worker[_trial_of(work)] = worker

    def forget(self, worker: str) -> None:
        """The worker is gone."""
        self._last_worker = {trial: name for trial, name in self._last_worker.items() if name != worker}

    def _ready(self, ranks: int | None = None) -> list[RemoteWorker]:
        """Workers that take work, of any or of that number of ranks."""
        ready = [worker for worker in self._workers.values() if worker.ready and worker.let_go is None]
        return [
            worker
            for worker in ready
            if not (worker.draining or worker.leaving or worker.retiring) and ranks in (None, worker.ranks)
        ]

    def _room(self, worker: RemoteWorker, prefetch: bool) -> int:
        slots = self._slots if worker.ranks == 1 else 1
        return 0 if worker.alone else max(0, slots + int(prefetch) - len(worker.slices))


def _trial_of(work: Slice) -> str:
    return "/".join(work.snapshot_dir.split("/")[:2])
