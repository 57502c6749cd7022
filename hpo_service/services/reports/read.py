"""Reads what a report says. However many trials there are, few are read whole."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

from sqlalchemy.orm import Session

from hpo_service import exporters
from hpo_service.services.data.checks import show_of_study
from hpo_service.services.insights.importances import show_importances
from hpo_service.services.promotions import verdict as promotion
from hpo_service.services.promotions.comparison import read_comparison
from hpo_service.services.reports.facts import ReportedTrial, StudyReport
from hpo_service.services.studies.best import best_file, find_best
from hpo_service.services.studies.read import study_document
from hpo_service.services.studies.schemas import StudyDocument
from hpo_service.services.trials.optuna_trials import COUNTERS, TrialFacts
from hpo_service.storage.queries import optuna_reads, reports, studies
from hpo_service.storage.queries.reports import Saved, TrialPoint
from hpo_service.storage.tables import Study

MOST_TRIALS = 150
_LEADERS = 50
_TIMELINE_BINS = 400
_NOTHING_SAVED = Saved(trials=0, examples=0, unmeasured=0, seconds=0.0)


def read_report(session: Session, project_id: int, name: str) -> StudyReport:
    """The study as it is now. Raises NotFound."""
    study = studies.find(session, project_id, name)
    document = study_document(session, study)
    best = find_best(session, study)
    comparison = None if best is None else read_comparison(session, study, best)
    file = None if best is None else best_file(session, study, best)
    trials = _trials(session, study, told_of(document))
    return StudyReport(
        made_at=datetime.now(UTC),
        version=version("hpo-service"),
        study=document,
        comparison=comparison,
        verdict="" if best is None else promotion.verdict(best, comparison),
        exports={} if file is None else {name: exporters.render(name, file) for name in exporters.FORMATS},
        importances=show_importances(session, project_id, name),
        points=trials.points,
        trials=trials.shown,
        failed=trials.failed,
        bad_attempts=reports.bad_attempts(session, project_id, study.id),
        saved=trials.saved,
        timeline=reports.timeline(session, project_id, study.id, bins=_TIMELINE_BINS),
        surroundings=reports.surroundings(session, project_id, study.id),
        data_check=show_of_study(session, project_id, name),
    )


def told_of(study: StudyDocument) -> set[int]:
    """Trials that are drawn because they are spoken of."""
    best = study.best
    numbers = {one.trial_number for one in study.confirmation.candidates} if study.confirmation else set[int]()
    if best is not None:
        numbers.add(best.trial_number)
        if best.improvement is not None:
            numbers.add(best.improvement.baseline_trial)
    return numbers


@dataclass(frozen=True, kw_only=True)
class _Trials:
    """What Optuna's tables say; nothing before the dispatcher has opened the study."""

    points: Sequence[TrialPoint] = ()
    shown: Sequence[ReportedTrial] = ()
    failed: Sequence[reports.FailedTrials] = ()
    saved: Saved = _NOTHING_SAVED


def _trials(session: Session, study: Study, wanted: Collection[int]) -> _Trials:
    if study.optuna_study_id is None:
        return _Trials()
    connection = session.connection()
    points = reports.trial_points(connection, study.optuna_study_id)
    return _Trials(
        points=points,
        shown=read_drawn(session, study, chosen(points, wanted)),
        failed=reports.failed_trials(connection, study.optuna_study_id),
        saved=reports.saved(session, study.project_id, study.id, study.optuna_study_id),
    )


def read_drawn(session: Session, study: Study, numbers: Collection[int]) -> list[ReportedTrial]:
    """These trials of a study that the dispatcher has opened, by number."""
    if study.optuna_study_id is None:
        return []
    rows = optuna_reads.read_trials_called(session.connection(), study.optuna_study_id, numbers)
    return sorted((_reported(TrialFacts(row)) for row in rows), key=lambda trial: trial.number)


def chosen(points: Sequence[TrialPoint], wanted: Collection[int], limit: int = MOST_TRIALS) -> set[int]:
    """Numbers of the trials to draw: trial 0, those `wanted`, the leaders, and of the others every so many-th."""
    if len(points) <= limit:
        return {point.number for point in points}
    numbers = {0, *wanted, *by_rank(points, measured_only=True)[:_LEADERS]}
    rest = [point.number for point in points if point.number not in numbers]
    room = max(0, limit - len(numbers))
    return numbers | {rest[place * len(rest) // room] for place in range(room)}


def by_rank(points: Sequence[TrialPoint], *, measured_only: bool = False) -> list[int]:
    """Numbers of the trials: complete ones by loss, then others by rung and loss, then those without a loss."""
    measured = [point for point in points if point.loss is not None and point.state != "FAIL"]
    complete = sorted((point for point in measured if point.state == "COMPLETE"), key=_by_loss)
    others = sorted((point for point in measured if point.state != "COMPLETE"), key=_by_rung)
    known = [point.number for point in (*complete, *others)]
    if measured_only:
        return known
    return known + [point.number for point in points if point.loss is None or point.state == "FAIL"]


def _by_loss(point: TrialPoint) -> tuple[float, int]:
    return (math.inf if point.loss is None else point.loss, point.number)


def _by_rung(point: TrialPoint) -> tuple[int, float, int]:
    return (-point.examples, *_by_loss(point))


def _reported(trial: TrialFacts) -> ReportedTrial:
    return ReportedTrial(
        number=trial.number,
        standing="paused" if trial.paused else COUNTERS[trial.state],
        baseline=trial.user_attrs.get("baseline") is True,
        parameters=dict(trial.parameters),
        losses={rung: loss for rung, loss in trial.intermediate.items() if math.isfinite(loss)},
        total_examples=trial.total_examples,
    )
