"""What a list says of each study, however many trials it has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from hpo_service.search.best import Confirmed
from hpo_service.services.confirmations.read import finalists, read_confirmation
from hpo_service.services.studies.schemas import BestDocument, LeaderDocument, SavingsDocument, TrialCounts
from hpo_service.services.trials.optuna_trials import COUNTERS, StudyFacts, TrialFacts
from hpo_service.storage.queries import optuna_reads
from hpo_service.storage.queries.optuna_sums import Leaders, TrialSums, leaders, trial_sums
from hpo_service.storage.tables import Study


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The same as `StudyFacts` says, without the trials."""

    counts: TrialCounts
    best: BestDocument | None
    savings: SavingsDocument
    leader: LeaderDocument | None = None


def read_summaries(
    session: Session, studies: Sequence[Study], confirmed: Mapping[int, Sequence[Confirmed]], *, leader: bool = False
) -> dict[int, Summary]:
    """By study. `confirmed` are finalists by study. The leader is looked for if it is asked for, or is the best."""
    open_ids = {study.id: study.optuna_study_id for study in studies if study.optuna_study_id is not None}
    sums = trial_sums(session.connection(), list(open_ids.values()), always_contenders=leader)
    return {
        study_id: _summary(session, optuna_id, sums[optuna_id], confirmed.get(study_id, ()))
        for study_id, optuna_id in open_ids.items()
    }


def read_leaders(session: Session, study: Study) -> StudyFacts:
    """The trials among which the best one and the leader are, the baseline, and the finalists of its confirmation."""
    if study.optuna_study_id is None:
        return StudyFacts(())
    optuna_id = study.optuna_study_id
    known = leaders(session.connection(), [optuna_id])[optuna_id]
    return _leaders(session, optuna_id, known, finalists(read_confirmation(session, study)))


def _leaders(session: Session, optuna_id: int, known: Leaders, confirmed: Sequence[Confirmed]) -> StudyFacts:
    wanted = known.numbers | known.contenders | {one.trial_number for one in confirmed}
    rows = optuna_reads.read_trials_called(session.connection(), optuna_id, wanted) if wanted else []
    return StudyFacts(tuple(TrialFacts(row) for row in rows), confirmed, frozenset(known.contenders))


def _summary(session: Session, optuna_study_id: int, sums: TrialSums, confirmed: Sequence[Confirmed]) -> Summary:
    counts: dict[str, int] = {}
    for (state, paused), trials in sums.counts.items():
        standing = "paused" if state == "RUNNING" and paused else COUNTERS[state]
        counts[standing] = counts.get(standing, 0) + trials
    facts = _leaders(session, optuna_study_id, sums.leaders, confirmed)
    return Summary(
        counts=TrialCounts(**counts),
        best=facts.best,
        leader=facts.leader,
        savings=SavingsDocument(examples=sums.saved, share=sums.saved / sums.planned if sums.planned else 0.0),
    )
