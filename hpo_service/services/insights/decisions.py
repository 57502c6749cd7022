"""Every decision of a study with the numbers behind it and how it turned out."""

from sqlalchemy.orm import Session

from hpo_service.services.insights.schemas import DecisionDocument
from hpo_service.services.studies.read import read_token
from hpo_service.services.studies.schemas import Page
from hpo_service.services.trials.optuna_trials import finite
from hpo_service.storage.queries import events, optuna_reads, studies
from hpo_service.storage.queries.attempts import slice_states
from hpo_service.storage.queries.events import EventRow


def list_decisions(
    session: Session, project_id: int, name: str, *, page_size: int, page_token: str | None
) -> Page[DecisionDocument]:
    """Decisions in the order in which they were made. Raises NotFound."""
    study = studies.find(session, project_id, name)
    after = 0 if page_token is None else read_token(page_token)
    rows = events.decisions_after(session, project_id, study.id, after, page_size + 1)
    shown = rows[:page_size]
    states = slice_states(session, project_id, [row.payload["slice_id"] for row in shown])
    losses: dict[int, dict[int, float]] = {}
    if study.optuna_study_id is not None:
        numbers = {row.trial_number for row in shown if row.trial_number is not None}
        found = optuna_reads.read_trials_called(session.connection(), study.optuna_study_id, numbers)
        losses = {trial.number: dict(trial.intermediate_values) for trial in found}
    return Page[DecisionDocument](
        items=[_document(row, states, losses) for row in shown],
        next_page_token=str(shown[-1].id) if len(rows) > page_size else None,
    )


def _document(row: EventRow, states: dict[int, str], losses: dict[int, dict[int, float]]) -> DecisionDocument:
    assert row.trial_number is not None
    payload, reached = row.payload, losses.get(row.trial_number, {})
    until, numbers = payload["until_examples"], dict(payload["numbers"])
    rule = numbers.pop("rule", None)
    state = states[payload["slice_id"]]
    return DecisionDocument.model_validate(
        {
            "number": payload["decision_number"],
            "decided_at": row.created_at,
            "trial_number": row.trial_number,
            "from_examples": max((rung for rung in reached if rung < until), default=0),
            "until_examples": until,
            "rule": rule,
            "reason": payload["reason"],
            "numbers": numbers,
            "outcome": state,
            "loss": finite(reached.get(until)) if state == "done" else None,
            "parameters": payload["parameters"],
        }
    )
