"""What the executor reported and no committed transaction has covered yet."""

import time
from collections.abc import Iterable
from typing import Any

from hpo_service.executors.base import ExecutorEvent, JobEnded, SliceEnded, SliceProgress, WorkerGone, WorkerReady
from trainer.spec import JobResult, Progress, SliceResult

_PROGRESS_EVERY_SECONDS = 1.0


def shown(progress: Progress) -> dict[str, Any]:
    """What is kept of a sign of life, for people."""
    return progress.model_dump(mode="json", exclude={"type", "slice_id", "attempt", "checkpoint"})


class Inbox:
    """Events stay here until `clear`, so that a failed commit loses none of them."""

    def __init__(self) -> None:
        self.ready: list[WorkerReady] = []
        self.gone: list[WorkerGone] = []
        self.results: list[SliceResult] = []
        self.job_results: list[JobResult] = []
        self.checkpoints: list[Progress] = []
        self.progress: dict[tuple[int, int], Progress] = {}
        self._progress_written_at = float("-inf")

    def add(self, events: Iterable[ExecutorEvent]) -> None:
        """Sort the events in, in order."""
        for event in events:
            match event:
                case WorkerReady():
                    self.ready.append(event)
                case WorkerGone():
                    self.gone.append(event)
                case SliceEnded():
                    self.results.append(event.result)
                case JobEnded():
                    self.job_results.append(event.result)
                case SliceProgress():
                    progress = event.progress
                    self.progress[progress.slice_id, progress.attempt] = progress
                    if progress.checkpoint is not None:
                        self.checkpoints.append(progress)

    def reported(self) -> set[tuple[int, int]]:
        """Tokens of the attempts that ended by themselves."""
        slices = {(result.slice_id, result.attempt) for result in self.results}
        return slices | {(result.job_id, result.attempt) for result in self.job_results}

    def has_news(self) -> bool:
        """Whether anything is here that could change what a strategy proposes; progress cannot."""
        return bool(self.ready or self.gone or self.results or self.job_results)

    def due(self) -> bool:
        """Whether a transaction is worth it now; mere progress is written once a second."""
        if self.has_news() or self.checkpoints:
            return True
        waited_seconds = time.monotonic() - self._progress_written_at
        return bool(self.progress) and waited_seconds >= _PROGRESS_EVERY_SECONDS

    def clear(self) -> None:
        """All of it is committed."""
        if self.progress:
            self._progress_written_at = time.monotonic()
        self.ready, self.gone, self.results, self.job_results = [], [], [], []
        self.checkpoints, self.progress = [], {}
