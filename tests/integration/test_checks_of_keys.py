"""Data checks that a key asked for, which no study waits for: they give way, and a newer one ends the older."""

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.services.data import checks
from hpo_service.storage.tables import Job
from tests.dispatching import (
    ended,
    expire_lease,
    make,
    post_study,
    state_of,
    study_row,
    turn_until,
)
from trainer.spec import CheckData, DataSpec

Sessions = sessionmaker[Session]


def wanted(sessions: Sessions, fingerprint: str, caller: int) -> int:
    """The check that the key asks for by itself, as `validate` does."""
    task = CheckData(model="/m", data=DataSpec(train="/d/train.jsonl"))
    with sessions.begin() as session:
        check = checks.ask(session, 1, checks.Check(task=task, fingerprint=fingerprint), caller=caller)
    assert check.job is not None
    return check.job


def row_of(sessions: Sessions, job_id: int) -> Job:
    with sessions() as session:
        return session.scalars(select(Job).where(Job.id == job_id)).one()


def test_a_check_that_only_a_key_asked_for_makes_room_for_the_study_s_own(sessions: Sessions) -> None:
    curious = wanted(sessions, "f", caller=1)
    dispatcher, fake = make(sessions)
    fake.hold_jobs = True
    turn_until(dispatcher, lambda: len(fake.jobs) == 1)
    study_id = post_study(sessions, fingerprint="g")
    turn_until(dispatcher, lambda: len(fake.jobs) == 2)
    own = study_row(sessions, study_id).check_job_id
    assert [work.job_id for work in fake.jobs] == [curious, own]
    assert (row_of(sessions, curious).state, row_of(sessions, curious).outcome) == ("waiting", "preempted")
    fake.hold_jobs = False
    turn_until(dispatcher, ended(sessions, study_id))
    turn_until(dispatcher, lambda: row_of(sessions, curious).state == "done")
    assert (state_of(sessions, study_id), row_of(sessions, curious).failures) == ("completed", 0)


def test_checks_of_studies_come_first_whoever_asked_first(sessions: Sessions) -> None:
    curious = [wanted(sessions, f"f{caller}", caller=caller) for caller in (1, 2)]
    study_id = post_study(sessions, fingerprint="g")
    dispatcher, fake = make(sessions)
    turn_until(dispatcher, ended(sessions, study_id))
    turn_until(dispatcher, lambda: all(row_of(sessions, one).state == "done" for one in curious))
    assert [work.job_id for work in fake.jobs] == [study_row(sessions, study_id).check_job_id, *curious]


def test_a_newer_check_of_the_same_key_ends_the_older(sessions: Sessions) -> None:
    running, waiting, other = (wanted(sessions, name, caller) for name, caller in (("a", 1), ("b", 2), ("c", 3)))
    dispatcher, fake = make(sessions)
    fake.hold_jobs = True
    turn_until(dispatcher, lambda: len(fake.jobs) == 1)
    newer = [wanted(sessions, "d", caller=1), wanted(sessions, "e", caller=2)]
    turn_until(dispatcher, lambda: row_of(sessions, running).state == row_of(sessions, waiting).state == "failed")
    message = "a newer check that was asked for with the same key took its place; ask again to have this one"
    assert row_of(sessions, running).message == row_of(sessions, waiting).message == message
    fake.hold_jobs = False
    turn_until(dispatcher, lambda: all(row_of(sessions, one).state == "done" for one in (other, *newer)))
    assert waiting not in [work.job_id for work in fake.jobs]


def test_a_check_that_somebody_else_wants_as_well_goes_on(sessions: Sessions) -> None:
    shared = wanted(sessions, "a", caller=1)
    assert wanted(sessions, "a", caller=2) == shared
    studied = wanted(sessions, "b", caller=3)
    study_id = post_study(sessions, fingerprint="b")
    assert study_row(sessions, study_id).check_job_id == studied
    newer = [wanted(sessions, "c", caller=1), wanted(sessions, "d", caller=3)]
    dispatcher, fake = make(sessions)
    turn_until(dispatcher, ended(sessions, study_id))
    turn_until(dispatcher, lambda: all(row_of(sessions, one).state == "done" for one in (shared, *newer)))
    assert state_of(sessions, study_id) == "completed"
    assert sorted(work.job_id for work in fake.jobs) == sorted([shared, studied, *newer])


def test_who_wants_a_check_outlives_the_dispatcher(sessions: Sessions) -> None:
    left, shared = wanted(sessions, "a", caller=1), wanted(sessions, "b", caller=2)
    wanted(sessions, "b", caller=3)
    dispatcher, fake = make(sessions)
    fake.hold_jobs = True
    turn_until(dispatcher, lambda: len(fake.jobs) == 1)
    expire_lease(sessions)
    newer = [wanted(sessions, "c", caller=1), wanted(sessions, "d", caller=2)]
    dispatcher, fake = make(sessions)
    turn_until(dispatcher, lambda: all(row_of(sessions, one).state == "done" for one in (shared, *newer)))
    assert row_of(sessions, left).state == "failed"


def test_a_study_that_asks_while_a_check_is_given_up_gets_one_of_its_own(sessions: Sessions) -> None:
    old = wanted(sessions, "a", caller=1)
    dispatcher, fake = make(sessions)
    fake.hold_jobs = True
    turn_until(dispatcher, lambda: len(fake.jobs) == 1)
    wanted(sessions, "b", caller=1)
    task = CheckData(model="/m", data=DataSpec(train="/d/train.jsonl"))
    with sessions.begin() as session:
        # A study is being made: whoever asks for this fingerprint now waits, and the check is not ended meanwhile.
        assert checks.ask(session, 1, checks.Check(task=task, fingerprint="a"), study_id=None).job == old
        for _ in range(10):
            dispatcher.turn()
        assert row_of(sessions, old).state == "waiting"
    turn_until(dispatcher, lambda: row_of(sessions, old).state == "failed")
