"""A list sums up in the database what one study's page works out from all of its trials."""

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.studies.facts import read_facts
from hpo_service.studies.summaries import read_summaries
from hpo_service.tables import Study
from tests.dispatching import make, post_study, turn_until


@pytest.mark.parametrize("slices", [2, 7, 30])
def test_the_sums_are_those_of_the_trials(sessions: sessionmaker[Session], slices: int) -> None:
    """Before any trial is complete, with the baseline complete, and further on."""
    first, second = post_study(sessions), post_study(sessions, metadata__name="t", baseline=None)
    dispatcher, fake = make(sessions)
    turn_until(dispatcher, lambda: len(fake.submitted) >= slices)
    with sessions() as session:
        studies = list(session.scalars(select(Study).where(Study.id.in_([first, second]))))
        summaries = read_summaries(session, studies, {})
        for study in studies:
            facts, summary = read_facts(session, study, ()), summaries[study.id]
            assert (summary.counts, summary.best, summary.savings) == (facts.counts, facts.best, facts.savings)
