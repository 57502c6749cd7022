"""What the console's page of a study shows. However many trials there are, few are read whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy.orm import Session

from hpo_service.core.messages import IntentKind
from hpo_service.core.study_rules import TERMINAL, StudyState
from hpo_service.services.insights.cache import insights_of
from hpo_service.services.insights.importances import show_importances
from hpo_service.services.insights.schemas import ImportancesDocument
from hpo_service.services.promotions import verdict as promotion
from hpo_service.services.promotions.comparison import read_comparison
from hpo_service.services.reports.facts import ReportedTrial
from hpo_service.services.reports.read import by_rank, chosen, read_drawn, told_of
from hpo_service.services.studies.best import find_best
from hpo_service.services.studies.pending_state import expected_state, is_open, possible
from hpo_service.services.studies.read import study_document
from hpo_service.services.studies.schemas import BestDocument, StudyDocument
from hpo_service.services.trials.read import trials_called
from hpo_service.services.trials.schemas import TrialSummary
from hpo_service.services.views.start_page import Running, read_events, read_running
from hpo_service.spec.space import SearchSpace
from hpo_service.spec.space.dimensions import Categories, FloatRange, IntRange, NumberChoices
from hpo_service.storage.queries import reports, studies
from hpo_service.storage.queries.overview import RecentEvent
from hpo_service.storage.queries.reports import TrialPoint
from hpo_service.storage.tables import Study

TRIALS_A_PAGE = 25
Order = Literal["best", "newest"]


@dataclass(frozen=True, kw_only=True)
class Searched:
    """A parameter that is sampled: the values that it may take, or its range."""

    name: str
    choices: Sequence[str | float | int | bool] | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Steering:
    """What can be asked of a study as it will stand once everything that was asked for is carried out."""

    kinds: Sequence[IntentKind]
    searches: bool
    """Its budget may be extended, and trials may be enqueued."""
    deletable: bool


@dataclass(frozen=True, kw_only=True)
class TrialTable:
    """One page of the trials. `pages` is at least 1."""

    trials: Sequence[TrialSummary]
    order: Order
    page: int
    pages: int


@dataclass(frozen=True, kw_only=True)
class StudyPage:
    """A study at one moment. `points` are all of its trials, `trials` those whose curves are drawn."""

    study: StudyDocument
    verdict: str
    """The best trial against the baseline, in a sentence; empty before the first rung."""
    points: Sequence[TrialPoint]
    trials: Sequence[ReportedTrial]
    table: TrialTable
    running: Running
    events: Sequence[RecentEvent]
    importances: ImportancesDocument
    searched: Sequence[Searched]
    steering: Steering

    @property
    def best(self) -> BestDocument | None:
        """The winner so far."""
        return self.study.best


def read_study_page(session: Session, project_id: int, name: str, *, order: Order, page: int) -> StudyPage:
    """The study as it is now, with the `page`-th part (from 1) of its trials. Raises NotFound."""
    study = studies.find(session, project_id, name)
    document = study_document(session, study)
    points = insights_of(session).get(session, study, "points", _points)
    best = find_best(session, study)
    return StudyPage(
        study=document,
        verdict="" if best is None else promotion.verdict(best, read_comparison(session, study, best)),
        points=points,
        trials=read_drawn(session, study, chosen(points, told_of(document))),
        table=_table(session, study, points, order, page),
        running=read_running(session, project_id, study.id),
        events=read_events(session, project_id, study.id),
        importances=show_importances(session, project_id, name),
        searched=_searched(study),
        steering=_steering(document),
    )


def _points(session: Session, study: Study) -> list[TrialPoint]:
    if study.optuna_study_id is None:
        return []
    return reports.trial_points(session.connection(), study.optuna_study_id)


def _table(session: Session, study: Study, points: Sequence[TrialPoint], order: Order, page: int) -> TrialTable:
    numbers = by_rank(points) if order == "best" else [point.number for point in reversed(points)]
    pages = max(1, -(-len(numbers) // TRIALS_A_PAGE))
    shown = min(page, pages)
    part = numbers[(shown - 1) * TRIALS_A_PAGE : shown * TRIALS_A_PAGE]
    return TrialTable(trials=trials_called(session, study, part), order=order, page=shown, pages=pages)


def _searched(study: Study) -> list[Searched]:
    space = SearchSpace.from_json(study.resolved["space"])
    found = []
    for name in space.dimensions:
        form = space.forms[name]
        if isinstance(form, Categories | NumberChoices):
            found.append(Searched(name=name, choices=form.values, low=None, high=None))
        elif isinstance(form, FloatRange | IntRange):
            low, high = form.extremes()
            found.append(Searched(name=name, choices=None, low=low, high=high))
    return found


def _steering(study: StudyDocument) -> Steering:
    state = expected_state(study.name, StudyState(study.state), study.pending)
    return Steering(
        kinds=possible(study.name, state),
        searches=is_open(state) and study.confirmation is None,
        deletable=study.state in TERMINAL and IntentKind.DELETE not in study.pending,
    )
