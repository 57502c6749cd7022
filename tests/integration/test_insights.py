"""What only all trials can tell is found once per change, and behind those who ask where that takes long."""

import time
from collections.abc import Callable
from threading import Event

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, event, select
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.messages import EventKind
from hpo_service.core.study_rules import StudyState
from hpo_service.services.insights import cache as insights
from hpo_service.services.insights.cache import Insights, insights_of, kept_insights
from hpo_service.storage.queries import dispatch
from hpo_service.storage.tables import DEFAULT_PROJECT_ID, Study
from tests import serving
from tests.dispatching import post_study, turn_until

Sessions = sessionmaker[Session]


class Reading:
    """Counts how often all trials were read."""

    def __init__(self) -> None:
        self.times = 0
        self.may_go_on = Event()
        self.may_go_on.set()

    def __call__(self, session: Session, study: Study) -> int:
        self.may_go_on.wait(10)
        self.times += 1
        return self.times


@pytest.fixture
def study_id(sessions: Sessions) -> int:
    return post_study(sessions)


def asked(sessions: Sessions, kept: Insights, study_id: int, reading: Callable[[Session, Study], int]) -> int:
    with sessions() as session:
        study = session.scalars(select(Study).where(Study.id == study_id)).one()
        return kept.get(session, study, "times", reading)


def change(sessions: Sessions, study_id: int, state: StudyState = StudyState.RUNNING) -> None:
    with sessions.begin() as session:
        dispatch.set_state(session, study_id, state, "")
        payload = {"state": state, "message": ""}
        dispatch.add_event(session, DEFAULT_PROJECT_ID, study_id, EventKind.STUDY_STATE, payload)


def test_a_change_is_read_at_once_where_that_is_quick(sessions: Sessions, study_id: int) -> None:
    kept, reading = Insights(), Reading()
    assert [asked(sessions, kept, study_id, reading) for _ in range(3)] == [1, 1, 1]
    change(sessions, study_id)
    assert [asked(sessions, kept, study_id, reading) for _ in range(2)] == [2, 2]


def test_nobody_waits_where_it_takes_long(sessions: Sessions, study_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insights, "_QUICK_SECONDS", 0.0)
    monkeypatch.setattr(insights, "_STANDS_FOR", 0.0)
    kept, reading = Insights(), Reading()
    assert asked(sessions, kept, study_id, reading) == 1
    change(sessions, study_id)
    reading.may_go_on.clear()
    assert [asked(sessions, kept, study_id, reading) for _ in range(3)] == [1, 1, 1]
    reading.may_go_on.set()
    deadline = time.monotonic() + 10
    while asked(sessions, kept, study_id, reading) == 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert reading.times == 2
    change(sessions, study_id, StudyState.COMPLETED)
    assert asked(sessions, kept, study_id, reading) == 3


def test_sessions_share_what_is_kept(sessions: Sessions) -> None:
    with sessions() as one, sessions() as other:
        assert insights_of(one) is insights_of(one) is not insights_of(other)
    sessions.configure(info=kept_insights())
    with sessions() as one, sessions() as other:
        assert insights_of(one) is insights_of(other)


def rows_read(engine: Engine, client: TestClient, path: str) -> int:
    """What the database answers while the path is asked for."""
    counts: list[int] = []

    def count(*arguments: object) -> None:
        counts.append(max(0, arguments[1].rowcount))  # type: ignore[attr-defined]

    event.listen(engine, "after_cursor_execute", count)
    try:
        client.get(path).raise_for_status()
    finally:
        event.remove(engine, "after_cursor_execute", count)
    return sum(counts)


@pytest.mark.parametrize("path", ["/v1/studies/first", "/v1/studies", "/v1/studies/first/best"])
def test_the_rows_that_a_page_reads_do_not_grow_with_the_trials(
    engine: Engine, sessions: Sessions, client: TestClient, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Of a study that changes all the time and has so many trials that reading them takes long."""
    monkeypatch.setattr(insights, "_QUICK_SECONDS", 0.0)
    monkeypatch.setattr(insights, "_STANDS_FOR", float("inf"))
    client.post("/v1/studies", json=serving.spec(budget={"max_trials": 90}))
    dispatcher, _ = serving.make_dispatcher(sessions)

    def trials() -> int:
        counts: dict[str, int] = client.get("/v1/studies/first").json()["trials"]
        return sum(counts.values())

    turn_until(dispatcher, lambda: trials() >= 12)
    few = rows_read(engine, client, path)
    turn_until(dispatcher, lambda: trials() >= 60)
    assert rows_read(engine, client, path) <= few + 2  # a state that no trial had before, a leader beside the baseline
