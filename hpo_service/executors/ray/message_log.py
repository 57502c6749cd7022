"""What a worker said and may still be needed. It lives beside the worker, so that a dispatcher may come and go."""

import threading
import time
from dataclasses import dataclass

from hpo_service.executors.base import Token
from hpo_service.executors.ray.protocol import Ended, Said
from trainer.spec import JobResult, Progress, Ready, SliceResult

#: checkpoints of an attempt that are on disk at the same time
_CHECKPOINTS = 2


@dataclass(frozen=True)
class _Entry:
    said: Said
    about: str
    token: Token | None = None


class MessageLog:
    """Kept are `Ready` and the end, of each attempt the newest sign of life, the checkpoints and its result.

    All about an attempt is forgotten once its result was taken. Thread-safe.
    """

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._sequence = 0
        self._news = threading.Condition()

    def add(self, message: Ready | Progress | SliceResult | JobResult | Ended) -> None:
        """Append what the worker said; older signs of life of the same attempt are of no use any more."""
        about, token = _about(message)
        with self._news:
            self._sequence += 1
            kind = "ended" if isinstance(message, Ended) else "message"
            said = Said(sequence=self._sequence, kind=kind, body=message.model_dump_json())
            if about in ("progress", "result"):
                self._drop("progress", token, keep=0)
            if about == "checkpoint":
                self._drop("checkpoint", token, keep=_CHECKPOINTS - 1)
            self._entries.append(_Entry(said, about, token))
            self._news.notify_all()

    def take(self, token: Token) -> None:
        """The attempt's result is safe elsewhere."""
        with self._news:
            self._entries = [entry for entry in self._entries if entry.token != token]

    def after(self, sequence: int, wait_seconds: float) -> list[Said]:
        """What was said after `sequence`; waits for something to be, until `wake` is called."""
        deadline = time.monotonic() + wait_seconds
        with self._news:
            found = self._after(sequence)
            if not found:
                self._news.wait(max(0.0, deadline - time.monotonic()))
                found = self._after(sequence)
            return found

    def wake(self) -> None:
        """Make everybody who waits return."""
        with self._news:
            self._news.notify_all()

    def results(self) -> set[Token]:
        """Attempts whose results were not taken yet."""
        with self._news:
            return {entry.token for entry in self._entries if entry.about == "result" and entry.token is not None}

    def _after(self, sequence: int) -> list[Said]:
        return [entry.said for entry in self._entries if entry.said.sequence > sequence]

    def _drop(self, about: str, token: Token | None, *, keep: int) -> None:
        """Forget all but the newest `keep` of what was said about the attempt."""
        found = [entry for entry in self._entries if entry.about == about and entry.token == token]
        old = found[: len(found) - keep] if keep else found
        self._entries = [entry for entry in self._entries if entry not in old]


def _about(message: Ready | Progress | SliceResult | JobResult | Ended) -> tuple[str, Token | None]:
    match message:
        case Ready():
            return "ready", None
        case Ended():
            return "ended", None
        case Progress():
            about = "progress" if message.checkpoint is None else "checkpoint"
            return about, (message.slice_id, message.attempt)
        case SliceResult():
            return "result", (message.slice_id, message.attempt)
        case JobResult():
            return "result", (message.job_id, message.attempt)
