"""Projects that may use so many devices at once, or so many GPU-hours a month: what each has left.

Nothing that runs is stopped: what a quota has no room for waits and goes on later, with nothing lost.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sqlalchemy.orm import Session, sessionmaker

from hpo_service.dispatcher.jobs.jobs import Jobs
from hpo_service.dispatcher.scheduling.expected_usage import mean_slice_seconds, reserved_seconds
from hpo_service.dispatcher.state.live_studies import LiveStudy
from hpo_service.storage.queries import tenants
from hpo_service.storage.queries.tenants import Standing
from trainer.spec import TrainFinal

_EVERY_SECONDS = 3.0
#: of the time, reading takes one part in so many at most
_SHARE = 20
WAITS = "waits for quota: "


@dataclass(kw_only=True)
class Quotas:
    """By project, read every few seconds; projects without a limit are not in it.

    `needed_seconds` are the device seconds of a study's next slice, where the month had no room for it.
    """

    known: dict[int, Standing] = field(default_factory=dict)
    needed_seconds: dict[int, float] = field(default_factory=dict)
    _spent_then: dict[int, float] = field(default_factory=dict)  #: by study: its device seconds when this was read
    _due_at: float = float("-inf")

    def refresh(self, sessions: sessionmaker[Session], studies: Iterable[LiveStudy]) -> None:
        """Read again what may have changed: by an operator, by a new month."""
        begun = time.monotonic()
        if begun < self._due_at:
            return
        with sessions() as session:
            self.known = {standing.project_id: standing for standing in tenants.standings(session, limited=True)}
        self._spent_then = {study.id: study.spent.seconds for study in studies}
        self.needed_seconds = {key: value for key, value in self.needed_seconds.items() if key in self._spent_then}
        now = time.monotonic()
        self._due_at = now + max(_EVERY_SECONDS, _SHARE * (now - begun))

    def seconds_since(self, study: LiveStudy) -> float:
        """Device seconds of the study's attempts that ended since the quotas were read."""
        return max(0.0, study.spent.seconds - self._spent_then.get(study.id, 0.0))


@dataclass(kw_only=True)
class Room:
    """What the projects with a quota have left; it shrinks with what is handed out."""

    devices: dict[int, int] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)

    def fits(self, project_id: int, ranks: int, seconds: float) -> bool:
        """Whether work on so many devices that is expected to take so many device seconds has room."""
        if self.devices.get(project_id, ranks) < ranks:
            return False
        left = self.seconds.get(project_id)
        return left is None or (left > 0 and left >= seconds)

    def take(self, project_id: int, ranks: int, seconds: float) -> None:
        """It is handed out."""
        if project_id in self.devices:
            self.devices[project_id] -= ranks
        if project_id in self.seconds:
            self.seconds[project_id] -= seconds

    def slices(self, study: LiveStudy) -> int:
        """How many slices the study may have running, as far as its project's quota goes."""
        running, most = len(study.running()), study.resolved.budget.max_parallel
        if self.seconds.get(study.project_id, 1.0) <= 0:
            return running
        left = self.devices.get(study.project_id)
        return most if left is None else min(most, running + max(0, left) // study.resolved.training.ranks)

    def copy(self) -> "Room":
        """What is handed out of the copy is still there."""
        return Room(devices=dict(self.devices), seconds=dict(self.seconds))


def room(quotas: Quotas, studies: Mapping[int, LiveStudy], open_jobs: Jobs) -> Room:
    """What is left beside all that runs; a slice that is queued behind another one counts as running."""
    left = Room()
    for project_id, standing in quotas.known.items():
        own = [study for study in studies.values() if study.project_id == project_id]
        limits = standing.limits
        if limits.parallel_gpus is not None:
            held = sum(len(study.running()) * study.resolved.training.ranks for study in own)
            left.devices[project_id] = limits.parallel_gpus - held - _of_trainings(open_jobs, project_id)
        if limits.gpu_hours_month is not None:
            taken = sum(quotas.seconds_since(study) + reserved_seconds(study) for study in own)
            left.seconds[project_id] = 3600.0 * limits.gpu_hours_month - standing.device_seconds_month - taken
    return left


def next_seconds(quotas: Quotas, study: LiveStudy) -> float:
    """Device seconds that the study's next slice is expected to take, 0 as long as that is not known."""
    return max(mean_slice_seconds(study), quotas.needed_seconds.get(study.id, 0.0))


def message(quotas: Quotas, left: Room, study: LiveStudy) -> str:
    """Why the study has nothing running, if a quota is the reason; else empty.

    That its project's devices are all in use is no news: that changes from slice to slice.
    """
    standing = quotas.known.get(study.project_id)
    if standing is None or study.running():
        return ""
    ranks, limits = study.resolved.training.ranks, standing.limits
    command = f"`hpo project quota {standing.project}"
    if limits.parallel_gpus is not None and ranks > limits.parallel_gpus:
        return (
            f"{WAITS}a trial takes {ranks} device(s) and project {standing.project} may use {limits.parallel_gpus} at "
            f"once; allow more with {command} --parallel-gpus N`, or cancel it and clone it with fewer"
        )
    seconds = left.seconds.get(study.project_id)
    if seconds is None or (seconds > 0 and seconds >= next_seconds(quotas, study)):
        return ""
    return (
        f"{WAITS}project {standing.project} has no room for another slice in its {limits.gpu_hours_month:g} GPU-hours "
        f"of this month; it goes on in the next one, or when {command} --gpu-hours-month H` allows more"
    )


def _of_trainings(open_jobs: Jobs, project_id: int) -> int:
    return sum(
        job.task.trial.training.ranks
        for job in open_jobs.values()
        if isinstance(job.task, TrainFinal) and job.running and job.project_id == project_id
    )
