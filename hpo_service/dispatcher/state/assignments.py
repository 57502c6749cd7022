"""Which worker holds which attempt. Survives a reload of the memory: it mirrors the executor, not the database."""

from collections.abc import Collection, Mapping

from hpo_service.executors.base import Token, WorkerGone, WorkerReady
from trainer.spec import Outcome, Ready, SliceResult


class Fleet:
    """Workers by name with their row ids and what they said of themselves, and the attempts in flight."""

    def __init__(self) -> None:
        self.worker_ids: dict[str, int] = {}
        self.ready: dict[str, Ready] = {}
        self._in_flight: dict[Token, str] = {}

    def note_ready(self, ready: Collection[WorkerReady]) -> None:
        """What these workers say of themselves, as far as they are known."""
        self.ready |= {event.worker: event.ready for event in ready if event.worker in self.worker_ids}

    def without(self, package: str) -> list[str]:
        """The workers that do not have the package, as far as is known."""
        return [worker for worker in self.worker_ids if package not in (self._software(worker) or {})]

    def lacks(self, package: str) -> bool:
        """Whether there are workers, all of them said what they have, and none has the package."""
        known = [self._software(worker) for worker in self.worker_ids]
        return bool(known) and all(software is not None and package not in software for software in known)

    def assign(self, token: Token, worker: str) -> None:
        """The attempt was handed to the worker."""
        self._in_flight[token] = worker

    def holder(self, token: Token) -> str | None:
        """The living worker that was given the attempt."""
        return self._in_flight.get(token)

    def holds(self, token: Token) -> bool:
        """Whether some living worker was given the attempt."""
        return token in self._in_flight

    def held_by(self, worker: str) -> list[Token]:
        """What the worker was given and has not ended."""
        return [token for token, holder in self._in_flight.items() if holder == worker]

    def by_worker(self) -> dict[str, list[Token]]:
        """The attempts in flight of every worker that has any."""
        held: dict[str, list[Token]] = {}
        for token, worker in self._in_flight.items():
            held.setdefault(worker, []).append(token)
        return held

    def lost_with(self, worker: str, reported: Collection[Token]) -> list[Token]:
        """The attempts that a dead worker held and did not report itself."""
        return [token for token, holder in self._in_flight.items() if holder == worker and token not in reported]

    def forget(self, ended: Collection[Token], gone: list[WorkerGone]) -> None:
        """These attempts ended and these workers died; call it after the commit."""
        dead = {event.worker for event in gone}
        self._in_flight = {
            token: worker for token, worker in self._in_flight.items() if token not in ended and worker not in dead
        }
        for worker in dead:
            self.worker_ids.pop(worker, None)
            self.ready.pop(worker, None)

    def _software(self, worker: str) -> Mapping[str, str] | None:
        ready = self.ready.get(worker)
        return None if ready is None else ready.software


def lost_result(token: Token, reason: str) -> SliceResult:
    """The end of an attempt whose worker cannot speak for itself."""
    return SliceResult(slice_id=token[0], attempt=token[1], outcome=Outcome.LOST, examples_seen=0, message=reason)
