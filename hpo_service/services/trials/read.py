"""Trials as documents: Optuna's row joined with what was dispatched for it."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from hpo_service.core.errors import NotFound
from hpo_service.services.common.usage import usage_document
from hpo_service.services.studies.read import read_token
from hpo_service.services.studies.schemas import Page
from hpo_service.services.trials.optuna_trials import TrialFacts, finite
from hpo_service.services.trials.schemas import AttemptDocument, Rung, TrialDocument, TrialSummary
from hpo_service.storage.queries import attempts, optuna_reads, studies, usage
from hpo_service.storage.queries.attempts import AttemptRow
from hpo_service.storage.queries.usage import Dispatched
from hpo_service.storage.tables import Study
from trainer.spec import sum_usage

_NEVER = Dispatched()


def list_trials(
    session: Session,
    project_id: int,
    name: str,
    *,
    page_size: int,
    page_token: str | None,
    newest_first: bool = False,
) -> Page[TrialSummary]:
    """Trials of a study by number. Raises NotFound."""
    study = studies.find(session, project_id, name)
    after = None if page_token is None else read_token(page_token)
    rows = _rows(session, study, after_number=after, limit=page_size + 1, newest_first=newest_first)
    shown = rows[:page_size]
    return Page[TrialSummary](
        items=_summaries(session, study, shown),
        next_page_token=str(shown[-1].number) if len(rows) > page_size else None,
    )


def trials_called(session: Session, study: Study, numbers: Sequence[int]) -> list[TrialSummary]:
    """The trials of these numbers, in their order."""
    if study.optuna_study_id is None or not numbers:
        return []
    rows = optuna_reads.read_trials_called(session.connection(), study.optuna_study_id, numbers)
    places = {number: place for place, number in enumerate(numbers)}
    return _summaries(session, study, [TrialFacts(row) for row in sorted(rows, key=lambda row: places[row.number])])


def show_trial(session: Session, project_id: int, name: str, number: int) -> TrialDocument:
    """One trial with its attempts. Raises NotFound."""
    study, trial = find_trial(session, project_id, name, number)
    history = attempts.attempts_of_trial(session, project_id, study.id, number)
    dispatched = Dispatched(
        attempts=len(history),
        seconds=sum(row.usage.total_seconds() for row in history),
        usd=sum(row.usd for row in history),
        usage=sum_usage(row.usage for row in history),
    )
    progress = attempts.progress_by_trial(session, project_id, study.id, [number]).get(number)
    return TrialDocument(
        **_summary(trial, dispatched, progress),
        history=[_attempt(row) for row in history],
        adapter_available=bool(attempts.snapshots_of_trial(session, project_id, study.id, number)),
    )


def find_trial(session: Session, project_id: int, name: str, number: int) -> tuple[Study, TrialFacts]:
    """The study and its trial. Raises NotFound."""
    study = studies.find(session, project_id, name)
    found = _rows(session, study, number=number)
    if not found:
        raise NotFound(f"study {name!r} has no trial {number}.")
    return study, found[0]


def trial_count(session: Session, study: Study) -> int:
    """How many trials there are, whatever became of them."""
    if study.optuna_study_id is None:
        return 0
    return sum(optuna_reads.count_by_state(session.connection(), study.optuna_study_id).values())


def _summaries(session: Session, study: Study, shown: Sequence[TrialFacts]) -> list[TrialSummary]:
    numbers = [trial.number for trial in shown]
    dispatched = usage.dispatched_by_trial(session, study.project_id, study.id, numbers)
    progress = attempts.progress_by_trial(session, study.project_id, study.id, numbers)
    return [
        TrialSummary(**_summary(trial, dispatched.get(trial.number, _NEVER), progress.get(trial.number)))
        for trial in shown
    ]


def _rows(
    session: Session,
    study: Study,
    *,
    after_number: int | None = None,
    limit: int | None = None,
    number: int | None = None,
    newest_first: bool = False,
) -> list[TrialFacts]:
    if study.optuna_study_id is None:
        return []
    rows = optuna_reads.read_trials(
        session.connection(),
        study.optuna_study_id,
        after_number=after_number,
        limit=limit,
        number=number,
        newest_first=newest_first,
    )
    return [TrialFacts(row) for row in rows]


def _summary(trial: TrialFacts, dispatched: Dispatched, progress: dict[str, Any] | None) -> dict[str, Any]:
    attrs = trial.user_attrs
    return {
        "number": trial.number,
        "state": trial.state,
        "paused": trial.paused,
        "baseline": attrs.get("baseline") is True,
        "parameters": dict(trial.parameters or trial.row.system_attrs.get("fixed_params", {})),
        "loss": finite(trial.value),
        "losses": [Rung(examples=rung, loss=finite(loss)) for rung, loss in sorted(trial.intermediate.items())],
        "examples_seen": trial.examples_seen,
        "total_examples": trial.total_examples,
        "outcome": attrs.get("outcome"),
        "message": str(attrs.get("message", "")),
        "attempts": dispatched.attempts,
        "seconds": dispatched.seconds,
        "cost_usd": dispatched.usd,
        "usage": usage_document(dispatched.usage),
        "progress": progress,
        "started_at": trial.started_at,
        "finished_at": trial.finished_at,
    }


def _attempt(row: AttemptRow) -> AttemptDocument:
    return AttemptDocument(
        slice_id=row.slice_id,
        attempt=row.attempt,
        until_examples=row.until_examples,
        worker=row.worker,
        node=row.node,
        outcome=row.outcome,
        cause=row.cause,
        message=row.message,
        started_at=row.started_at,
        finished_at=row.finished_at,
        examples=row.usage.examples,
        seconds=row.usage.total_seconds(),
        cost_usd=row.usd,
        estimated=row.usage.lost_seconds > 0,
        flops=row.usage.flops,
        usage=usage_document(row.usage.sums()),
        devices=row.usage.devices,
        device=row.device,
        dtype=row.dtype,
        attention=row.attention,
        micro_batch=row.micro_batch,
        predicted_memory_bytes=row.predicted_memory_bytes,
    )
