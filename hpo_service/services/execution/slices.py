"""Slices of a study as documents."""

from sqlalchemy.orm import Session

from hpo_service.services.execution.schemas import SliceDocument, SliceState
from hpo_service.services.studies.read import read_token
from hpo_service.services.studies.schemas import Page
from hpo_service.storage.queries import studies
from hpo_service.storage.queries.slices import SliceRow, slices_after


def list_slices(
    session: Session, project_id: int, name: str, *, page_size: int, page_token: str | None, state: SliceState | None
) -> Page[SliceDocument]:
    """Slices of a study in the order in which they were made. Raises NotFound."""
    study = studies.find(session, project_id, name)
    after = 0 if page_token is None else read_token(page_token)
    rows = slices_after(session, project_id, study.id, after_id=after, limit=page_size + 1, state=state)
    shown = rows[:page_size]
    return Page[SliceDocument](
        items=[_document(row) for row in shown],
        next_page_token=str(shown[-1].slice.id) if len(rows) > page_size else None,
    )


def _document(row: SliceRow) -> SliceDocument:
    piece = row.slice
    return SliceDocument.model_validate(
        {
            "id": piece.id,
            "trial_number": piece.trial_number,
            "until_examples": piece.until_examples,
            "state": piece.state,
            "attempt": piece.attempt,
            "failures": piece.failures,
            "failures_by_cause": piece.failures_by_cause,
            "seconds": row.seconds,
            "lost_seconds": row.lost_seconds,
            "cost_usd": row.usd,
            "worker": row.worker,
            "node": row.node,
            "progress": piece.progress,
            "created_at": piece.created_at,
            "finished_at": piece.finished_at,
        }
    )
