"""The rows that a study's first result is of are those of all its trials."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.executors.fake import FakeExecutor
from hpo_service.storage.tables import Attempt, Study
from tests.dispatching import loss_of, make, optuna_trials, post_study, state_of, turn_until
from trainer.spec import DataFingerprints, Outcome, Slice, SliceResult

Sessions = sessionmaker[Session]
FIRST, OTHER = (DataFingerprints(train=digit * 64) for digit in "12")


class ReadingExecutor(FakeExecutor):
    """Finds `rows` where it looks at the data, or `late_rows` once a slice has ended."""

    def __init__(self, late_rows: DataFingerprints = FIRST, **options: Any) -> None:
        super().__init__(loss_of, **options)
        self._rows = [late_rows, FIRST]

    def _result(self, work: Slice) -> SliceResult:
        found = self._rows.pop() if len(self._rows) > 1 else self._rows[0]
        return super()._result(work).model_copy(update={"data_fingerprints": found})


def test_slices_after_the_first_result_are_told_the_rows(sessions: Sessions) -> None:
    """After a restart and in the confirmation as well."""
    study_id = post_study(sessions, confirm={"share": 0.6}, budget={"max_trials": 4, "max_examples": 20_000})
    dispatcher, executor = make(sessions, ReadingExecutor())
    turn_until(dispatcher, lambda: len(executor.submitted) == 3)
    dispatcher.context.studies = None
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    told = [work.data_fingerprints for work in executor.submitted]
    assert told == [None, *[FIRST] * (len(told) - 1)]
    with sessions() as session:
        kept = session.scalars(select(Study.data_fingerprints)).all()
    assert [DataFingerprints.model_validate(one) for one in kept] == [FIRST, FIRST]
    assert any(work.trial.training.seed != executor.submitted[0].trial.training.seed for work in executor.submitted)


def test_a_result_of_other_rows_fails_the_study(sessions: Sessions, database_url: str) -> None:
    """Of a slice that ran beside the first one, so that nobody could tell it."""
    study_id = post_study(sessions, budget__max_parallel=2)
    dispatcher, executor = make(sessions, ReadingExecutor(OTHER, workers=2))
    executor.hold = True
    turn_until(dispatcher, lambda: len(executor.submitted) == 2)
    executor.hold = False
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "failed")
    first, second = optuna_trials(database_url)[:2]
    assert first.intermediate_values
    assert not second.intermediate_values
    assert second.user_attrs["outcome"] == Outcome.DATA_ERROR
    with sessions() as session:
        message = session.scalars(select(Study.message).where(Study.id == study_id)).one()
        outcomes = session.scalars(select(Attempt.outcome).order_by(Attempt.slice_id)).all()
    assert outcomes[:2] == [Outcome.DONE, Outcome.DATA_ERROR]
    assert "trial 1: /d/train.jsonl has changed since training on it began" in message
