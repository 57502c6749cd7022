"""Trials as Optuna's tables have them, to be copied into an Optuna study elsewhere."""

import math

from optuna.distributions import distribution_to_json
from sqlalchemy.orm import Session

from hpo_service.services.studies.read import read_token
from hpo_service.services.trials.schemas import OptunaTrial, OptunaTrials, StoredNumber
from hpo_service.spec import ResolvedStudy
from hpo_service.storage.queries import optuna_reads, studies


def read_optuna_trials(
    session: Session, project_id: int, name: str, *, page_size: int, page_token: str | None
) -> OptunaTrials:
    """Trials of a study by number. Raises NotFound."""
    study = studies.find(session, project_id, name)
    objectives = ResolvedStudy.model_validate(study.resolved).search.objectives
    found: list[optuna_reads.TrialRow] = []
    if study.optuna_study_id is not None:
        after = None if page_token is None else read_token(page_token)
        found = optuna_reads.read_trials(
            session.connection(), study.optuna_study_id, after_number=after, limit=page_size + 1
        )
    shown = found[:page_size]
    return OptunaTrials(
        directions=[objective.goal for objective in objectives],
        items=[_document(trial) for trial in shown],
        next_page_token=str(shown[-1].number) if len(found) > page_size else None,
    )


def _document(trial: optuna_reads.TrialRow) -> OptunaTrial:
    return OptunaTrial(
        number=trial.number,
        state=trial.state.name,
        values=None if trial.values is None else [_number(value) for value in trial.values],
        params=dict(trial.params),
        distributions={key: distribution_to_json(one) for key, one in trial.distributions.items()},
        user_attrs=dict(trial.user_attrs),
        intermediate_values={step: _number(loss) for step, loss in trial.intermediate_values.items()},
        started_at=trial.started_at,
        finished_at=trial.finished_at,
    )


def _number(value: float) -> StoredNumber:
    """JSON has no infinities and no NaN: words that every language reads as them."""
    if math.isnan(value):
        return "nan"
    return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")
