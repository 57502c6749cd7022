"""The cursor of a sink: in order, by one process at a time, and not beyond what was told."""

import threading
from collections.abc import Iterator, Sequence

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.messages import EventKind
from hpo_service.integrations.base import SinkAway
from hpo_service.integrations.delivery import Delivery
from hpo_service.storage.queries import dispatch, outbox
from hpo_service.storage.queries.outbox import OutboxEvent
from hpo_service.storage.tables import DEFAULT_PROJECT_ID


class Listener:
    """Keeps what it is told; goes away before the events in `away`, once each."""

    name = "listener"

    def __init__(self, *, from_now: bool = False, away: Sequence[int] = ()) -> None:
        self.from_now = from_now
        self.told = list[int]()
        self._away = set(away)

    def take(self, outbox: str, events: Sequence[OutboxEvent]) -> Iterator[int]:
        for event in events:
            if event.payload["number"] in self._away:
                self._away.remove(event.payload["number"])
                raise SinkAway("away")
            self.told.append(event.payload["number"])
            yield event.id


def happen(sessions: sessionmaker[Session], *numbers: int) -> None:
    with sessions.begin() as session:
        for number in numbers:
            dispatch.add_event(session, DEFAULT_PROJECT_ID, None, EventKind.WORKER_RELEASED, {"number": number})
            session.flush()


def position(sessions: sessionmaker[Session]) -> int:
    with sessions.begin() as session:
        return outbox.open_cursor(session, "listener", from_now=False).last_event_id


def test_everything_once_and_in_order_through_outages(engine: Engine, sessions: sessionmaker[Session]) -> None:
    listener = Listener(away=[0, 3, 700])
    happen(sessions, *range(1200))
    delivery = Delivery(engine, listener)
    pauses = [delivery.turn() for _ in range(6)]
    assert listener.told == list(range(1200))
    assert [pause > 0 for pause in pauses] == [True, True, False, True, False, True]
    happen(sessions, 1200)
    delivery.turn()
    assert listener.told == list(range(1201))


def test_a_failure_in_the_middle_keeps_what_was_told(engine: Engine, sessions: sessionmaker[Session]) -> None:
    listener = Listener(away=[2])
    happen(sessions, 0, 1, 2)
    Delivery(engine, listener).turn()
    assert listener.told == [0, 1]
    Delivery(engine, listener).turn()
    assert listener.told == [0, 1, 2]


def test_pauses_grow_and_the_outage_is_logged_once(
    engine: Engine, sessions: sessionmaker[Session], caplog: pytest.LogCaptureFixture
) -> None:
    class Away(Listener):
        def take(self, outbox: str, events: Sequence[OutboxEvent]) -> Iterator[int]:
            raise SinkAway("nobody there")

    happen(sessions, 0)
    delivery = Delivery(engine, Away())
    pauses = [delivery.turn() for _ in range(10)]
    assert 0.5 <= pauses[0] <= 1
    assert 30 <= pauses[-1] <= 60
    assert caplog.text.count("nobody there") == 1


def test_a_sink_from_now_leaves_the_past_out(engine: Engine, sessions: sessionmaker[Session]) -> None:
    happen(sessions, 0, 1)
    listener = Listener(from_now=True)
    delivery = Delivery(engine, listener)
    delivery.turn()
    happen(sessions, 2)
    delivery.turn()
    assert listener.told == [2]


def test_of_two_processes_one_tells(engine: Engine, sessions: sessionmaker[Session]) -> None:
    first, second = Listener(), Listener()
    stop = threading.Event()
    threads = [
        threading.Thread(target=Delivery(engine, one, poll_seconds=0.01).run, args=(stop,)) for one in (first, second)
    ]
    for thread in threads:
        thread.start()
    for number in range(30):
        happen(sessions, number)
    for _ in range(500):
        if len(first.told) + len(second.told) == 30:
            break
        stop.wait(0.02)
    stop.set()
    for thread in threads:
        thread.join()
    assert [] in (first.told, second.told)
    assert first.told + second.told == list(range(30))


def test_a_cursor_that_another_moved_is_not_moved_back(sessions: sessionmaker[Session]) -> None:
    start = position(sessions)
    with sessions.begin() as session:
        assert outbox.advance(session, "listener", start, start + 5)
        assert not outbox.advance(session, "listener", start, start + 3)
    assert position(sessions) == start + 5
