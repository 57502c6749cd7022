"""The Pareto front of a study's objectives."""

import math

from sqlalchemy.orm import Session

from hpo_service.search.pareto import costs, measured, nondomination_ranks, values
from hpo_service.services.insights.cache import insights_of
from hpo_service.services.insights.schemas import ObjectiveDocument, ParetoDocument, ParetoPoint
from hpo_service.services.trials.optuna_trials import TrialFacts, read_facts
from hpo_service.spec import SearchSettings
from hpo_service.spec.objectives import Objective
from hpo_service.storage.queries import studies
from hpo_service.storage.tables import Study


def show_pareto(session: Session, project_id: int, name: str) -> ParetoDocument:
    """The front over trials of all rungs. Raises NotFound."""
    study = studies.find(session, project_id, name)
    return insights_of(session).get(session, study, "front", _read_front)


def _read_front(session: Session, study: Study) -> ParetoDocument:
    objectives = SearchSettings.model_validate(study.resolved["search"]).objectives
    known = [
        (trial, row)
        for trial in read_facts(session, study).trials
        if trial.state != "FAIL" and trial.intermediate and _finite(row := _values(objectives, trial))
    ]
    ranks = nondomination_ranks(costs(objectives, [row for _, row in known]))
    front = [pair for pair, rank in zip(known, ranks, strict=True) if rank == 0]
    return ParetoDocument(
        objectives=[ObjectiveDocument(name=objective.name, goal=objective.goal) for objective in objectives],
        trials=len(known),
        items=[_point(objectives, trial, row) for trial, row in sorted(front, key=lambda pair: pair[1])],
    )


def _values(objectives: tuple[Objective, ...], trial: TrialFacts) -> list[float]:
    loss = trial.intermediate[trial.examples_seen]
    return values(objectives, loss, measured(trial.user_attrs))


def _finite(row: list[float]) -> bool:
    return all(math.isfinite(value) for value in row)


def _point(objectives: tuple[Objective, ...], trial: TrialFacts, row: list[float]) -> ParetoPoint:
    return ParetoPoint(
        trial_number=trial.number,
        provisional=trial.state != "COMPLETE",
        examples=trial.examples_seen,
        total_examples=trial.total_examples,
        values={objective.name: value for objective, value in zip(objectives, row, strict=True)},
        parameters=dict(trial.parameters),
    )
