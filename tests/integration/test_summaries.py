"""A list and a study's page sum up in the database what could be worked out from all of its trials and attempts."""

from functools import reduce
from operator import add

import pytest
from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.executors.fake import FakeExecutor
from hpo_service.services.studies.read import study_document
from hpo_service.services.studies.schemas import LeadDocument
from hpo_service.services.studies.summaries import read_leaders, read_summaries
from hpo_service.services.trials.optuna_trials import read_facts
from hpo_service.storage.database.preparation import downgrade, upgrade
from hpo_service.storage.queries.usage import Consumed, consumed_by_study, dispatched_by_trial
from hpo_service.storage.tables import DEFAULT_PROJECT_ID, Slice, Study
from tests.dispatching import loss_of, make, post_study, turn_until
from trainer.spec import UsageSums

BEFORE_SUMS = "0005"


@pytest.mark.parametrize("slices", [2, 7, 30])
def test_the_sums_are_those_of_the_trials(sessions: sessionmaker[Session], slices: int) -> None:
    """Before any trial is complete, with the baseline complete, and further on."""
    first, second = post_study(sessions), post_study(sessions, metadata__name="t", baseline=None)
    dispatcher, fake = make(sessions)
    turn_until(dispatcher, lambda: len(fake.submitted) >= slices)
    with sessions() as session:
        studies = list(session.scalars(select(Study).where(Study.id.in_([first, second]))))
        summaries = read_summaries(session, studies, {}, leader=True)
        for study in studies:
            facts, summary = read_facts(session, study), summaries[study.id]
            assert (summary.counts, summary.best, summary.savings) == (facts.counts, facts.best, facts.savings)
            assert summary.leader == facts.leader
            assert read_leaders(session, study).best == facts.best


def consumed(session: Session, study_id: int) -> Consumed:
    return consumed_by_study(session, DEFAULT_PROJECT_ID, [study_id])[study_id]


def test_what_a_study_consumed_is_the_sum_of_its_attempts(sessions: sessionmaker[Session], engine: Engine) -> None:
    """While slices run, and from the attempts alone, as the migration adds up those that there were before it."""
    study_id = post_study(sessions)
    with sessions() as session:
        assert consumed(session, study_id).usage == UsageSums()
    dispatcher, fake = make(sessions, FakeExecutor(loss_of, workers=2))
    turn_until(dispatcher, lambda: len(fake.submitted) >= 9)
    with sessions() as session:
        known = consumed(session, study_id)
        trials = dispatched_by_trial(session, DEFAULT_PROJECT_ID, study_id, range(20))
    summed = reduce(add, (trial.usage for trial in trials.values()))
    assert known.spent.trials == len(trials)
    assert known.spent.examples == summed.examples > 0
    assert known.usage.model_dump() == pytest.approx(summed.model_dump())
    downgrade(engine, BEFORE_SUMS)
    upgrade(engine)
    with sessions() as session:
        again = consumed(session, study_id)
    assert again.usage.model_dump() == pytest.approx(known.usage.model_dump())
    assert again.spent.usd == pytest.approx(known.spent.usd)


def test_how_surely_the_leader_is_ahead_is_said_in_parts_of_the_evaluation_rows(
    sessions: sessionmaker[Session],
) -> None:
    """Paired: the same parts of the same rows, after the same examples."""
    study_id = post_study(sessions, budget={"max_trials": 40})
    dispatcher, _ = make(sessions)

    def lead() -> tuple[int, int, LeadDocument] | None:
        with sessions() as session:
            document = study_document(session, session.get_one(Study, study_id))
        if document.leader is None or document.best is None or document.leader.ahead_of_best is None:
            return None
        return document.leader.trial_number, document.best.trial_number, document.leader.ahead_of_best

    turn_until(dispatcher, lambda: lead() is not None)
    found = lead()
    assert found is not None
    first, best, at = found
    assert (at.parts, at.parts_ahead) == (0, 0)
    with sessions.begin() as session:
        for number, folds in ((first, [1.0, 2.0, 3.0, 4.0]), (best, [1.5, 2.5, 3.5, 3.5])):
            at_the_rung = (Slice.trial_number == number, Slice.until_examples == at.examples)
            session.execute(update(Slice).where(Slice.study_id == study_id, *at_the_rung).values(fold_losses=folds))
    found = lead()
    assert found is not None
    assert (found[2].parts, found[2].parts_ahead) == (4, 3)
