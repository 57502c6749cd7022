"""What the console's first page shows: all studies of a project, what runs, what waits, what happened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from hpo_service.services.common.schemas import UsageDocument
from hpo_service.services.common.usage import usage_document
from hpo_service.services.execution.schemas import WorkerDocument
from hpo_service.services.execution.workers import list_workers
from hpo_service.services.insights.cache import insights_of
from hpo_service.services.studies.forecasts import ForecastDocument, forecast_document
from hpo_service.services.studies.read import read_token, study_summaries
from hpo_service.services.studies.schemas import StudySummary
from hpo_service.storage.queries import overview, studies
from hpo_service.storage.queries.overview import Lowest, OpenSlice, RecentEvent
from hpo_service.storage.queries.usage import dispatched_by_trial
from hpo_service.storage.tables import Study

MOST_SLICES = 200
_MOST_ENDED = 15
_MOST_WORKERS = 200
_MOST_EVENTS = 30

TrialKey = tuple[int, int]
"""Id of the study and number of the trial."""


@dataclass(frozen=True, kw_only=True)
class StudyLine:
    """A study in the list. `budget` holds the caps of the spec, `lowest` how its lowest loss fell."""

    summary: StudySummary
    budget: Mapping[str, Any]
    forecast: ForecastDocument | None
    lowest: Lowest


@dataclass(frozen=True, kw_only=True)
class Running:
    """Open slices, at most `MOST_SLICES` of them, with what their trials took before. `counts` are by state, of all."""

    slices: Sequence[OpenSlice]
    counts: Mapping[str, int]
    earlier: Mapping[TrialKey, UsageDocument]


@dataclass(frozen=True, kw_only=True)
class Overview:
    """A project at one moment. `live` are all studies that have not ended, `ended` some of the others."""

    live: Sequence[StudyLine]
    ended: Sequence[StudyLine]
    older: str | None
    """From where the list of ended studies goes on."""
    running: Running
    workers: Sequence[WorkerDocument]
    events: Sequence[RecentEvent]


def read_overview(session: Session, project_id: int, *, older: str | None) -> Overview:
    """The project as it is now; of its ended studies those from `older` on."""
    before = None if older is None else read_token(older)
    rows = studies.ended(session, project_id, before_id=before, limit=_MOST_ENDED + 1)
    ended = rows[:_MOST_ENDED]
    live = [study for study in reversed(studies.live(session, project_id)) if study.parent_study_id is None]
    lines = _lines(session, project_id, [*live, *ended])
    return Overview(
        live=lines[: len(live)],
        ended=lines[len(live) :],
        older=str(ended[-1].id) if len(rows) > _MOST_ENDED else None,
        running=read_running(session, project_id, None),
        workers=list_workers(session, project_id, page_size=_MOST_WORKERS, page_token=None, gone=False).items,
        events=overview.recent_events(session, project_id, study_id=None, limit=_MOST_EVENTS),
    )


def read_running(session: Session, project_id: int, study_id: int | None) -> Running:
    """What runs and waits, in the project or for one study."""
    slices = overview.open_slices(session, project_id, study_id=study_id, limit=MOST_SLICES)
    by_study: dict[int, list[int]] = {}
    for one in slices:
        by_study.setdefault(one.study_id, []).append(one.trial_number)
    earlier = {
        (study, number): usage_document(dispatched.usage)
        for study, numbers in by_study.items()
        for number, dispatched in dispatched_by_trial(session, project_id, study, numbers).items()
    }
    return Running(slices=slices, counts=overview.count_open_slices(session, project_id), earlier=earlier)


def read_events(session: Session, project_id: int, study_id: int) -> list[RecentEvent]:
    """What happened to a study, the newest first."""
    return overview.recent_events(session, project_id, study_id=study_id, limit=_MOST_EVENTS)


def read_change_mark(session: Session, project_id: int) -> tuple[object, ...]:
    """Differs from an earlier one if anything that people see of the project has changed since."""
    return overview.change_mark(session, project_id)


def _lines(session: Session, project_id: int, rows: Sequence[Study]) -> list[StudyLine]:
    insights = insights_of(session)
    return [
        StudyLine(
            summary=summary,
            budget=row.resolved["budget"],
            forecast=forecast_document(row),
            lowest=insights.get(session, row, "lowest losses", _lowest),
        )
        for row, summary in zip(rows, study_summaries(session, project_id, rows), strict=True)
    ]


def _lowest(session: Session, study: Study) -> Lowest:
    if study.optuna_study_id is None:
        return Lowest()
    return overview.lowest_losses(session.connection(), study.optuna_study_id)
