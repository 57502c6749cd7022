"""Memory that runs out on a worker group, with the fake executor: what is tried again, what is kept, what is told."""

from collections.abc import Callable

import pytest
from optuna.trial import TrialState
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.executors.fake import FakeExecutor
from hpo_service.storage.tables import Attempt, Slice
from tests.dispatching import events_of, expire_lease, loss_of, make, optuna_trials, post_study, state_of, turn_until
from tests.invariants import broken
from trainer.spec import Outcome, SliceResult
from trainer.spec import Slice as Work

Sessions = sessionmaker[Session]
GIBIBYTE = 2**30


class ShortExecutor(FakeExecutor):
    """Two devices in a group; memory runs out where `fails` says so."""

    def __init__(self, fails: Callable[[Work], bool]) -> None:
        super().__init__(loss_of, workers=2)
        self.fails = fails

    def _result(self, work: Work) -> SliceResult:
        if not self.fails(work):
            return super()._result(work)
        micro_batch = work.micro_batch or 8
        return SliceResult(
            slice_id=work.slice_id,
            attempt=work.attempt,
            outcome=Outcome.OOM,
            examples_seen=0,
            micro_batch=micro_batch,
            predicted_memory_bytes=micro_batch * GIBIBYTE,
            ends_worker=True,
            message="rank 1 of the worker group ran out of memory",
        )


def post(sessions: Sessions, ranks: int = 2) -> int:
    # No attempt may fail through anybody's fault: what is tried again for memory does not count.
    resources = {"gpus_per_trial": ranks, "max_attempts": 1}
    return post_study(sessions, resources=resources, budget={"max_trials": 2})


def test_it_is_tried_again_with_half_and_stays_so_also_after_a_restart(sessions: Sessions, database_url: str) -> None:
    study_id = post(sessions)
    dispatcher, fake = make(sessions, ShortExecutor(lambda work: work.micro_batch is None))
    fake.hold = True
    turn_until(dispatcher, lambda: len(fake.submitted) == 1)
    fake.hold = False
    turn_until(dispatcher, lambda: any(event.kind == "slice.retried" for event in events_of(sessions, study_id)))
    dispatcher.context.proposals.close()
    expire_lease(sessions)

    dispatcher, fake = make(sessions, ShortExecutor(lambda work: False))
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    numbers = {row.id: row.trial_number for row in slices(sessions)}
    given = [(numbers[work.slice_id], work.micro_batch) for work in fake.submitted]
    assert set(given) == {(0, 4), (1, None)}
    assert given.count((0, 4)) > 1, "later slices of the trial keep it"
    assert optuna_trials(database_url)[0].state is TrialState.COMPLETE
    assert {row.failures for row in slices(sessions)} == {0}
    payloads = [event.payload for event in events_of(sessions, study_id) if event.kind == "trial.notice"]
    (notice,) = [payload for payload in payloads if payload["kind"] == "oom_halved"]
    assert notice["values"] == {"micro_batch": 8.0, "predicted_bytes": 8.0 * GIBIBYTE}
    assert "with micro-batch 8 (predicted 8.00 GiB); the slice is tried again with 4" in notice["message"]
    with sessions() as session:
        assert broken(session, settled=True) == []


def test_the_second_time_the_trial_is_out_of_memory(sessions: Sessions, database_url: str) -> None:
    study_id = post(sessions)
    dispatcher, _ = make(sessions, ShortExecutor(lambda work: work.trial.parameters.learning_rate == 1e-4))
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    failed, other = optuna_trials(database_url)
    assert (failed.state, failed.user_attrs["outcome"]) == (TrialState.FAIL, "oom")
    assert failed.user_attrs["message"].endswith(
        "; memory ran out with micro-batch 8 (predicted 8.00 GiB) and with micro-batch 4 (predicted 4.00 GiB)"
    )
    assert other.state is not TrialState.FAIL
    with sessions() as session:
        rows = session.scalars(select(Attempt).where(Attempt.outcome == "oom").order_by(Attempt.attempt)).all()
        assert [(row.attempt, row.cause, row.micro_batch) for row in rows] == [(1, None, 8), (2, None, 4)]
        assert broken(session, settled=True) == []


@pytest.mark.parametrize("ranks", [1, 2])
def test_what_cannot_be_halved_is_reported_at_once(sessions: Sessions, database_url: str, ranks: int) -> None:
    """On one device the engine has halved it already; below one example there is nothing."""
    study_id = post(sessions, ranks)
    dispatcher, fake = make(sessions, ShortExecutor(lambda work: work.trial.parameters.learning_rate == 1e-4))
    result = fake._result
    if ranks == 2:
        fake._result = lambda work: (  # type: ignore[method-assign]
            result(work).model_copy(update={"micro_batch": 1})
        )
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    failed = optuna_trials(database_url)[0]
    assert (failed.user_attrs["outcome"], failed.user_attrs["message"]) == (
        "oom",
        "rank 1 of the worker group ran out of memory",
    )


def slices(sessions: Sessions) -> list[Slice]:
    with sessions() as session:
        return list(session.scalars(select(Slice).order_by(Slice.id)))
