"""What happened to a study, in order."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from hpo_service.core.study_rules import TERMINAL
from hpo_service.services.execution.schemas import EventDocument
from hpo_service.services.studies.read import read_token
from hpo_service.services.studies.schemas import Page
from hpo_service.storage.queries import events, studies
from hpo_service.storage.queries.events import EventRow

_BATCH = 500


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Events after a known one. `full`: more are there already. `last`: the study has ended and nothing follows."""

    events: list[EventRow]
    full: bool
    last: bool


def find_study_id(session: Session, project_id: int, name: str) -> int:
    """Id of the study. Raises NotFound."""
    return studies.find(session, project_id, name).id


def list_service_events(
    session: Session, project_id: int, *, page_size: int, page_token: str | None
) -> Page[EventDocument]:
    """What happened to the service itself, in order: losses of workers, quarantines, take-overs."""
    after = 0 if page_token is None else read_token(page_token)
    rows = events.service_events_after(session, project_id, after, page_size + 1)
    shown = rows[:page_size]
    return Page[EventDocument](
        items=[
            EventDocument(id=row.id, kind=row.kind, payload=row.payload, created_at=row.created_at) for row in shown
        ],
        next_page_token=str(shown[-1].id) if len(rows) > page_size else None,
    )


def next_events(session: Session, project_id: int, study_id: int, after: int) -> Batch:
    """The next events. The state is read first: events of an end that is seen here are committed already."""
    state = studies.state_by_id(session, project_id, study_id)
    found = events.events_after(session, project_id, study_id, after, _BATCH)
    ended = state is None or state in TERMINAL
    full = len(found) == _BATCH
    return Batch(events=found, full=full, last=ended and not full)
