"""Who gets the slots, what a budget lets pass, and who leads: on a real PostgreSQL with the fake executor."""

import time
from threading import Event, Thread

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.messages import IntentKind
from hpo_service.executors.fake import FakeExecutor
from hpo_service.spec import ResolvedStudy
from hpo_service.storage.queries.leases import LEASE_SECONDS
from hpo_service.storage.tables import Attempt, Slice, Study
from tests.dispatching import ask, events_of, loss_of, make, post_study, state_of, turn_until

Sessions = sessionmaker[Session]


def studies_of(sessions: Sessions, fake: FakeExecutor) -> list[int]:
    """The study of every slice that was submitted, in order."""
    with sessions() as session:
        owners = {row.id: row.study_id for row in session.scalars(select(Slice))}
    return [owners[work.slice_id] for work in fake.submitted]


def test_a_higher_priority_takes_over_at_the_next_rung(sessions: Sessions) -> None:
    low = post_study(sessions, resources={"priority": 10})
    dispatcher, fake = make(sessions)
    turn_until(dispatcher, lambda: len(fake.submitted) >= 3)
    high = post_study(sessions, metadata__name="t", resources={"priority": 90}, budget__max_trials=3)
    turn_until(dispatcher, lambda: state_of(sessions, high) == "completed")
    order = studies_of(sessions, fake)
    first, last = order.index(high), len(order) - order[::-1].index(high)
    assert low not in order[first:last]
    turn_until(dispatcher, lambda: state_of(sessions, low) == "completed")
    with sessions() as session:
        assert set(session.scalars(select(Attempt.outcome))) == {"done"}


def test_equal_studies_share_the_workers(sessions: Sessions) -> None:
    first, second = post_study(sessions), post_study(sessions, metadata__name="t")
    dispatcher, fake = make(sessions)
    turn_until(dispatcher, lambda: len(fake.submitted) >= 10)
    shares = [studies_of(sessions, fake).count(study) for study in (first, second)]
    assert min(shares) >= 4


def test_many_slots_are_filled_in_few_turns(sessions: Sessions) -> None:
    study = post_study(sessions, search={"seed": 3, "strategy": "asha", "sampler": "random"}, budget__max_trials=64)
    dispatcher, fake = make(sessions, FakeExecutor(loss_of, workers=32))
    fake.hold = True
    turn_until(dispatcher, lambda: len(fake.submitted) >= 32, turns=40)
    numbers = [
        event.payload["decision_number"] for event in events_of(sessions, study) if event.kind == "slice.started"
    ]
    assert numbers == list(range(1, len(numbers) + 1))
    fake.hold = False
    turn_until(dispatcher, lambda: state_of(sessions, study) == "completed")
    with sessions() as session:
        predicted = session.scalars(select(Attempt.predicted_seconds).order_by(Attempt.started_at)).all()
    assert predicted[0] is None
    assert (predicted[-1] or 0.0) > 0


def test_a_slice_at_the_cap_is_stopped_with_what_it_has(sessions: Sessions) -> None:
    search = {"seed": 3, "strategy": "asha"}
    study = post_study(sessions, search=search, budget__max_trials=9, budget__max_gpu_hours=0.5 / 3600)
    dispatcher, fake = make(sessions)
    turn_until(dispatcher, lambda: len(fake.submitted) >= 3)
    fake.hold = True
    turn_until(dispatcher, lambda: state_of(sessions, study) == "completed", turns=60)
    with sessions() as session:
        outcomes = set(session.scalars(select(Attempt.outcome)))
        message = session.scalars(select(Study.message).where(Study.id == study)).one()
    assert outcomes == {"done", "preempted"}
    assert "GPU-hours are spent" in message


def test_a_cap_that_is_raised_in_time_stops_nothing(sessions: Sessions) -> None:
    study = post_study(sessions, budget__max_examples=2500)
    dispatcher, fake = make(sessions)
    turn_until(dispatcher, lambda: len(fake.submitted) >= 2)
    with sessions() as session:
        resolved = ResolvedStudy.model_validate(session.scalars(select(Study.resolved).where(Study.id == study)).one())
    ask(
        sessions, study, IntentKind.EXTEND, resolved=resolved.extend({}, {"max_examples": None}).model_dump(mode="json")
    )
    turn_until(dispatcher, lambda: state_of(sessions, study) == "completed")
    with sessions() as session:
        assert "budget is spent" not in session.scalars(select(Study.message).where(Study.id == study)).one()


def test_a_running_study_says_what_it_will_cost(sessions: Sessions) -> None:
    study = post_study(sessions)
    dispatcher, fake = make(sessions)
    turn_until(dispatcher, lambda: len(fake.submitted) >= 3)
    for live in (dispatcher.context.studies or {}).values():
        live.forecast_at = float("-inf")
    turn_until(dispatcher, lambda: len(fake.submitted) >= 5)
    with sessions() as session:
        known = session.scalars(select(Study.forecast).where(Study.id == study)).one()
    assert known["examples"]["low"] <= known["examples"]["expected"] <= known["examples"]["high"]
    assert known["earliest"] <= known["ends_at"] <= known["latest"]


def test_a_standby_leads_within_ten_seconds(sessions: Sessions) -> None:
    """The leader falls silent without a word; the other one goes on with its study."""
    study = post_study(sessions)
    leader, fake = make(sessions)
    turn_until(leader, lambda: len(fake.submitted) >= 2)
    standby, others = make(sessions)
    stop = Event()
    thread = Thread(target=standby.run, args=(stop,))
    silent_since = time.monotonic()
    thread.start()
    while not others.submitted and time.monotonic() < silent_since + 60:
        time.sleep(0.05)
    taken_over_seconds = time.monotonic() - silent_since
    while state_of(sessions, study) != "completed" and time.monotonic() < silent_since + 60:
        time.sleep(0.1)
    stop.set()
    thread.join(30)
    assert LEASE_SECONDS < 10
    assert taken_over_seconds < 10
    assert state_of(sessions, study) == "completed"
