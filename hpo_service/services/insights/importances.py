"""Which parameters of a study mattered, and which of its ranges are too narrow."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from hpo_service.core.study_rules import TERMINAL
from hpo_service.formatting.range_edges import command, sentence
from hpo_service.search.importances import FEWEST_TRIALS, beyond_chance, edges_among, importances, ranked, unexplored
from hpo_service.search.strategies.base import TrialStanding, TrialView
from hpo_service.services.insights.cache import insights_of
from hpo_service.services.insights.schemas import ImportanceDocument, ImportancesDocument
from hpo_service.services.studies.schemas import EdgeDocument
from hpo_service.services.trials.optuna_trials import TrialFacts, read_facts
from hpo_service.spec import ResolvedStudy
from hpo_service.storage.queries import optuna_reads, studies
from hpo_service.storage.queries.optuna_losses import read_losses
from hpo_service.storage.tables import Study

_STANDINGS: dict[str, TrialStanding] = {
    "WAITING": "waiting",
    "RUNNING": "running",
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
}
#: so many of the best trials are looked at for edges; a tenth would be enough, were all parameters always used
_BEST = 200


def show_importances(session: Session, project_id: int, name: str) -> ImportancesDocument:
    """Importances over all rungs. Raises NotFound."""
    study = studies.find(session, project_id, name)
    return insights_of(session).get(session, study, "importances", _read_importances)


def dashboard_importances(session: Session, project_id: int, optuna_study_id: int) -> list[list[dict[str, Any]]]:
    """The same as optuna-dashboard's page wants them, once for each objective. Raises NotFound."""
    study = studies.find_opened(session, project_id, optuna_study_id)
    resolved = ResolvedStudy.model_validate(study.resolved)
    kinds = {name: type(found).__name__ for name, found in resolved.search_space().distributions().items()}
    found = insights_of(session).get(session, study, "importances", _read_importances)
    shown = [
        {"name": entry.parameter, "importance": entry.share, "distribution": kinds[entry.parameter]}
        for entry in found.importances
    ]
    return [shown for _ in resolved.search.objectives]


def study_edges(session: Session, study: Study) -> list[EdgeDocument]:
    """Ranges that the best trials would leave."""
    return insights_of(session).get(session, study, "edges", _read_edges)


def _read_importances(session: Session, study: Study) -> ImportancesDocument:
    resolved = ResolvedStudy.model_validate(study.resolved)
    space, trials = resolved.search_space(), views(read_facts(session, study).trials)
    known = ranked(trials, resolved.ladder)
    best = known[0][0].parameters if known else {}
    sure = beyond_chance(space, trials, resolved.ladder)
    return ImportancesDocument(
        trials=len(known),
        needed=FEWEST_TRIALS,
        importances=[
            ImportanceDocument(
                parameter=parameter, share=share, beyond_chance=parameter in sure, best=best.get(parameter)
            )
            for parameter, share in importances(space, trials, resolved.ladder).items()
        ],
        unexplored=unexplored(space, [trial for trial, _ in known]) if len(known) >= FEWEST_TRIALS else [],
        edges=_read_edges(session, study),
    )


def _read_edges(session: Session, study: Study) -> list[EdgeDocument]:
    """All losses are compared, but of the trials only the best ones are read."""
    if study.optuna_study_id is None:
        return []
    losses = read_losses(session.connection(), study.optuna_study_id)
    if len(losses) < FEWEST_TRIALS:
        return []
    resolved = ResolvedStudy.model_validate(study.resolved)
    lean = [TrialView(number=trial.number, standing="paused", losses=trial.losses) for trial in losses]
    numbers = [trial.number for trial, _ in ranked(lean, resolved.ladder)[:_BEST]]
    rows = optuna_reads.read_trials_called(session.connection(), study.optuna_study_id, numbers)
    found = {trial.number: trial for trial in views([TrialFacts(row) for row in rows])}
    space = resolved.search_space()
    return [
        EdgeDocument(
            parameter=edge.parameter,
            side=edge.side,
            best=edge.best,
            low=edge.low,
            high=edge.high,
            trials=edge.trials,
            message=sentence(edge),
            command=command(edge, study.name, space, ended=study.state in TERMINAL),
        )
        for edge in edges_among(space, [found[number] for number in numbers])
    ]


def views(trials: Sequence[TrialFacts]) -> list[TrialView]:
    """Trials as strategies see them, as far as comparing them needs it."""
    return [
        TrialView(
            number=trial.number,
            standing="paused" if trial.paused else _STANDINGS[trial.state],
            sampled=trial.row.params,
            parameters=trial.parameters,
            losses=trial.intermediate,
            baseline=trial.user_attrs.get("baseline") is True,
        )
        for trial in trials
    ]
