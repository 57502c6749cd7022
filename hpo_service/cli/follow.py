"""A study's events in a thread of their own, through restarts of the service."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from hpo_service.client.http import ApiProblem, Client, Json, ServiceUnreachable, StudyEvent, study_path

Answer = TypeVar("Answer")

_GIVE_UP_SECONDS = 120.0
_RETRY_SECONDS = 0.5


class Follower:
    """Collects the events of one study; `take` hands them over in order."""

    def __init__(self, client: Client, name: str, after: int = 0) -> None:
        self._client = client
        self._name = name
        self._after = after
        self._queue: queue.Queue[StudyEvent | Exception] = queue.Queue()
        self._stop = threading.Event()

    def take(self, wait_seconds: float) -> list[StudyEvent]:
        """What has arrived; waits up to `wait_seconds` for the first.

        Raises:
            ApiProblem: the service refuses.
            ServiceUnreachable: it has not answered for two minutes.
        """
        events: list[StudyEvent] = []
        try:
            item = self._queue.get(timeout=wait_seconds)
            while True:
                if isinstance(item, Exception):
                    raise item
                events.append(item)
                item = self._queue.get_nowait()
        except queue.Empty:
            return events

    def run(self) -> None:
        """Read until stopped; reconnect after the last event that was seen."""
        answered = time.monotonic()
        while not self._stop.is_set():
            try:
                with self._client.events(self._name, self._after) as events:
                    answered = time.monotonic()
                    for event in events:
                        self._after = event.id
                        self._queue.put(event)
                        answered = time.monotonic()
                        if self._stop.is_set():
                            return
            except ServiceUnreachable as error:
                if time.monotonic() - answered > _GIVE_UP_SECONDS:
                    self._queue.put(error)
                    return
            except ApiProblem as error:
                if error.status < 500:
                    self._queue.put(error)
                    return
            self._stop.wait(_RETRY_SECONDS)

    def stop(self) -> None:
        """Read no more."""
        self._stop.set()


@contextmanager
def following(client: Client, name: str, after: int = 0) -> Iterator[Follower]:
    """A follower that runs while the block does."""
    follower = Follower(client, name, after)
    threading.Thread(target=follower.run, name="events", daemon=True).start()
    try:
        yield follower
    finally:
        follower.stop()


def patient_study(client: Client, name: str) -> Json:
    """The study, asked for again for up to two minutes while the service restarts."""
    return patient(lambda: client.get(study_path(name)))


def newest_trials(client: Client, name: str, most: int) -> list[Json]:
    """At most so many of the study's newest trials, by number, as patiently."""
    page = patient(lambda: client.get(f"{study_path(name)}/trials", newest_first="true", page_size=most))
    return list(reversed(page["items"]))


def patient(ask: Callable[[], Answer]) -> Answer:
    """What is answered, asked for again for up to two minutes while the service restarts."""
    deadline = time.monotonic() + _GIVE_UP_SECONDS
    while True:
        try:
            return ask()
        except ServiceUnreachable:
            if time.monotonic() > deadline:
                raise
        except ApiProblem as error:
            if error.status < 500 or time.monotonic() > deadline:
                raise
        time.sleep(_RETRY_SECONDS)
