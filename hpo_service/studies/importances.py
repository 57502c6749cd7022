"""Which parameters of a study mattered, and which of its ranges are too narrow."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from hpo_service.domain import TERMINAL
from hpo_service.edge_words import command, sentence
from hpo_service.importances import FEWEST_TRIALS, edges, importances, ranked
from hpo_service.repository import studies
from hpo_service.search_space import SearchSpace
from hpo_service.spec import ResolvedStudy
from hpo_service.strategies.base import TrialStanding, TrialView
from hpo_service.studies.documents import EdgeDocument
from hpo_service.studies.facts import TrialFacts, read_facts
from hpo_service.studies.insight_documents import ImportanceDocument, ImportancesDocument
from hpo_service.tables import Study

_STANDINGS: dict[str, TrialStanding] = {
    "WAITING": "waiting",
    "RUNNING": "running",
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
}


def show_importances(session: Session, project_id: int, name: str) -> ImportancesDocument:
    """Importances over all rungs. Raises NotFound."""
    study = studies.find(session, project_id, name)
    resolved = ResolvedStudy.model_validate(study.resolved)
    space, trials = resolved.search_space(), views(read_facts(session, study).trials)
    known = ranked(trials, resolved.ladder)
    best = known[0][0].parameters if known else {}
    return ImportancesDocument(
        trials=len(known),
        needed=FEWEST_TRIALS,
        importances=[
            ImportanceDocument(parameter=parameter, share=share, best=best.get(parameter))
            for parameter, share in importances(space, trials, resolved.ladder).items()
        ],
        edges=_edges(study, resolved, space, trials),
    )


def study_edges(study: Study, trials: Sequence[TrialFacts]) -> list[EdgeDocument]:
    """Ranges that the best trials would leave."""
    if len(trials) < FEWEST_TRIALS:
        return []
    resolved = ResolvedStudy.model_validate(study.resolved)
    return _edges(study, resolved, resolved.search_space(), views(trials))


def views(trials: Sequence[TrialFacts]) -> list[TrialView]:
    """Trials as strategies see them, as far as comparing them needs it."""
    return [
        TrialView(
            number=trial.number,
            standing="paused" if trial.paused else _STANDINGS[trial.state],
            sampled=trial.row.params,
            parameters=trial.user_attrs.get("parameters", {}),
            losses=trial.intermediate,
            baseline=trial.user_attrs.get("baseline") is True,
        )
        for trial in trials
    ]


def _edges(
    study: Study, resolved: ResolvedStudy, space: SearchSpace, trials: Sequence[TrialView]
) -> list[EdgeDocument]:
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
        for edge in edges(space, trials, resolved.ladder)
    ]
