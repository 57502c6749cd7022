"""What attempts cost that were lost with their workers: estimated, priced, and on the study's bill."""

from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.pricing import Prices
from hpo_service.core.study_rules import Cause
from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.executors.base import SliceProgress
from hpo_service.executors.fake import FakeExecutor
from hpo_service.storage.queries import dispatch
from hpo_service.storage.tables import Attempt
from tests.dispatching import expire_lease, loss_of, optuna_trials, post_study, state_of, turn_until
from tests.invariants import broken
from trainer.spec import Progress

Sessions = sessionmaker[Session]
USD_PER_HOUR = 3600.0


def make(sessions: Sessions, fake: FakeExecutor) -> Dispatcher:
    return Dispatcher(sessions, fake, snapshots=Path("/nonexistent"), prices=Prices(USD_PER_HOUR))


def began_ago(sessions: Sessions, seconds: float) -> None:
    """As if all attempts had been handed out so long ago."""
    with sessions.begin() as session:
        session.execute(
            text("UPDATE hpo.attempts SET started_at = started_at - make_interval(secs => :seconds)"),
            {"seconds": seconds},
        )


def attempts(sessions: Sessions) -> list[Attempt]:
    with sessions() as session:
        return list(session.scalars(select(Attempt).order_by(Attempt.slice_id, Attempt.attempt)))


def say(dispatcher: Dispatcher, fake: FakeExecutor, number: int = 0) -> None:
    """A sign of life of a slice that was handed out."""
    work = fake.submitted[number]
    progress = Progress(
        slice_id=work.slice_id,
        attempt=work.attempt,
        examples_seen=1,
        step=1,
        train_loss=None,
        tokens_per_second=1.0,
        memory_bytes=1,
    )
    fake.send_progress(SliceProgress(worker=fake.workers()[0], progress=progress))
    dispatcher.turn()


@pytest.mark.parametrize("cause", [Cause.WORKER_DIED, Cause.NO_PROGRESS, Cause.NODE_LOST])
def test_a_lost_attempt_is_on_the_bill_and_not_in_the_pace(sessions: Sessions, database_url: str, cause: Cause) -> None:
    study_id = post_study(sessions, resources={"gpus_per_trial": 2}, budget={"max_trials": 1}, baseline=None)
    fake = FakeExecutor(loss_of, workers=2)
    dispatcher, fake.hold = make(sessions, fake), True
    turn_until(dispatcher, lambda: len(fake.submitted) == 1)
    say(dispatcher, fake)
    began_ago(sessions, 100.0)
    fake.kill(fake.workers()[0], "gone", cause)
    turn_until(dispatcher, lambda: len(fake.submitted) == 2)
    lost, _ = attempts(sessions)
    assert (lost.outcome, lost.cause, lost.devices, lost.device) == ("lost", cause, 2, "fake")
    assert lost.lost_seconds == pytest.approx(100.0, abs=10.0)
    assert lost.cost_usd == pytest.approx(2 * lost.lost_seconds)
    assert dispatcher.context.studies is not None
    spent = dispatcher.context.studies[study_id].spent
    assert (spent.seconds, spent.usd) == (2 * lost.lost_seconds, lost.cost_usd)
    assert optuna_trials(database_url)[0].user_attrs["seconds"] == 0
    with sessions() as session:
        known = dispatch.spent(session, study_id)
        assert (known.seconds, known.usd) == (spent.seconds, spent.usd)
        assert broken(session) == []


def test_a_budget_that_lost_attempts_have_used_up_is_used_up(sessions: Sessions) -> None:
    study_id = post_study(sessions, budget={"max_trials": 9, "max_gpu_hours": 0.05}, search__deterministic=False)
    fake = FakeExecutor(loss_of)
    dispatcher, fake.hold = make(sessions, fake), True
    turn_until(dispatcher, lambda: len(fake.submitted) >= 1)
    say(dispatcher, fake)
    began_ago(sessions, 200.0)
    fake.kill(fake.workers()[0])
    fake.hold = False
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    with sessions() as session:
        message = session.execute(text("SELECT message FROM hpo.studies")).scalar_one()
    assert "0.06 of 0.05 GPU-hours are spent" in message


def test_slices_that_share_a_worker_share_what_was_lost_and_queued_ones_cost_nothing(sessions: Sessions) -> None:
    post_study(sessions, search__deterministic=False, search__strategy="none")
    fake = FakeExecutor(loss_of, slots=2)
    dispatcher, fake.hold = make(sessions, fake), True
    turn_until(dispatcher, lambda: len(fake.submitted) == 3)
    for number in (0, 1):
        say(dispatcher, fake, number)
    began_ago(sessions, 100.0)
    fake.kill("fake-0")
    turn_until(dispatcher, lambda: all(row.outcome for row in attempts(sessions) if row.attempt == 1))
    seconds = [row.lost_seconds for row in attempts(sessions) if row.attempt == 1]
    assert seconds == [pytest.approx(50.0, abs=5.0), pytest.approx(50.0, abs=5.0), 0.0]


def test_what_a_dispatcher_took_with_it_counts_until_it_was_last_heard_of(sessions: Sessions) -> None:
    study_id = post_study(sessions)
    fake = FakeExecutor(loss_of)
    dispatcher, fake.hold = make(sessions, fake), True
    turn_until(dispatcher, lambda: len(fake.submitted) == 1)
    say(dispatcher, fake)
    turn_until(dispatcher, lambda: attempts_heard(sessions))
    began_ago(sessions, 100.0)
    dispatcher.context.proposals.close()
    expire_lease(sessions)
    with sessions.begin() as session:
        # The service was away for an hour.
        session.execute(text("UPDATE hpo.slices SET heard_at = heard_at - interval '1 hour'"))
        session.execute(text("UPDATE hpo.attempts SET started_at = started_at - interval '1 hour'"))
    other = FakeExecutor(loss_of)
    follower, other.hold = make(sessions, other), True
    turn_until(follower, lambda: len(other.submitted) == 1)
    lost = attempts(sessions)[0]
    assert (lost.cause, lost.device) == ("dispatcher_lost", "fake")
    assert lost.lost_seconds == pytest.approx(100.0, abs=10.0)
    assert lost.cost_usd == pytest.approx(lost.lost_seconds)
    assert follower.context.studies is not None
    assert follower.context.studies[study_id].spent.seconds == lost.lost_seconds


def attempts_heard(sessions: Sessions) -> bool:
    with sessions() as session:
        return session.execute(text("SELECT heard_at FROM hpo.slices")).scalar_one() is not None
