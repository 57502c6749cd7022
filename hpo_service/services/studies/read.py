"""Studies as documents."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from sqlalchemy.orm import Session

from hpo_service.core.errors import InvalidRequest
from hpo_service.core.messages import IntentKind
from hpo_service.core.study_rules import Spent
from hpo_service.search.marginal_gain import outlook
from hpo_service.services.common.usage import spent_document, usage_document
from hpo_service.services.confirmations.read import (
    confirmation_document,
    confirmed_by_study,
    finalists,
    read_confirmation,
)
from hpo_service.services.execution.blockers import standstill
from hpo_service.services.insights.importances import study_edges
from hpo_service.services.studies.forecasts import forecast_document
from hpo_service.services.studies.reserve import reserve_of
from hpo_service.services.studies.schemas import (
    LeaderDocument,
    OutlookDocument,
    Page,
    SavingsDocument,
    StudyDocument,
    StudySummary,
    TrialCounts,
)
from hpo_service.services.studies.summaries import Summary, read_summaries
from hpo_service.services.studies.warm_start import past_documents
from hpo_service.storage.queries import events, promotions, studies
from hpo_service.storage.queries.usage import Consumed, consumed_by_study
from hpo_service.storage.tables import Intent, Study

#: what the first slice fixes, and no PATCH changes
_PINNED = ("model", "dtype_device")
_EMPTY = Summary(counts=TrialCounts(), best=None, savings=SavingsDocument(examples=0, share=0.0))


def list_studies(session: Session, project_id: int, *, page_size: int, page_token: str | None) -> Page[StudySummary]:
    """Studies of the project, the newest first."""
    before = None if page_token is None else read_token(page_token)
    rows = studies.newest_first(session, project_id, before_id=before, limit=page_size + 1)
    shown = rows[:page_size]
    return Page[StudySummary](
        items=study_summaries(session, project_id, shown),
        next_page_token=str(shown[-1].id) if len(rows) > page_size else None,
    )


def study_summaries(session: Session, project_id: int, rows: Sequence[Study]) -> list[StudySummary]:
    """These studies of the project as a list shows them."""
    ids = [study.id for study in rows]
    consumed = consumed_by_study(session, project_id, ids)
    pending = studies.open_intent_kinds(session, project_id, ids)
    summaries = read_summaries(session, rows, confirmed_by_study(session, project_id, ids))
    return [
        StudySummary(**_summary(study, summaries.get(study.id, _EMPTY), consumed[study.id], pending.get(study.id, [])))
        for study in rows
    ]


def show_study(session: Session, project_id: int, name: str) -> StudyDocument:
    """One study. Raises NotFound."""
    return study_document(session, studies.find(session, project_id, name))


def study_document(session: Session, study: Study) -> StudyDocument:
    """The study with its spec and everything that is known of it now."""
    last_event = events.last_id(session, study.project_id, study.id)  # before all else, so that none is missed
    intents = studies.open_intents(session, study)
    consumed = consumed_by_study(session, study.project_id, [study.id])[study.id]
    confirmation = read_confirmation(session, study)
    summaries = read_summaries(session, [study], {study.id: finalists(confirmation)}, leader=True)
    summary = summaries.get(study.id, _EMPTY)
    return StudyDocument(
        **_summary(study, summary, consumed, [intent.kind for intent in intents]),
        leader=_with_parts(session, study, summary),
        reserve=reserve_of(study, summary, consumed.spent) if confirmation is None else None,
        spec=study.spec,
        resolved={key: value for key, value in study.resolved.items() if key != "past"},
        past=past_documents(study.resolved.get("past", []), study.memory),
        edges=study_edges(session, study),
        outlook=_outlook(session, study, consumed.spent),
        forecast=forecast_document(study),
        standstill=standstill(session, study),
        confirmation=confirmation_document(session, confirmation),
        last_event=last_event,
        etag=etag(study, intents),
    )


def _with_parts(session: Session, study: Study, summary: Summary) -> LeaderDocument | None:
    """The leader, with on how many parts of the evaluation rows it is ahead of the best trial."""
    first, best = summary.leader, summary.best
    if first is None or best is None or first.ahead_of_best is None:
        return first
    lead = first.ahead_of_best
    ours, theirs = (
        promotions.folds_at(session, study.project_id, study.id, number, lead.examples)
        for number in (first.trial_number, best.trial_number)
    )
    if len(ours) != len(theirs) or lead.examples != lead.best_examples:
        return first
    ahead = sum(one < other for one, other in zip(ours, theirs, strict=True))
    return first.model_copy(
        update={"ahead_of_best": lead.model_copy(update={"parts": len(ours), "parts_ahead": ahead})}
    )


def effective_resolved(study: Study, intents: Sequence[Intent]) -> dict[str, Any]:
    """The resolved spec once pending extensions are carried out."""
    extensions = [intent.payload["resolved"] for intent in intents if intent.kind == IntentKind.EXTEND]
    return dict(extensions[-1]) if extensions else study.resolved


def etag(study: Study, intents: Sequence[Intent]) -> str:
    """Changes with what a PATCH can change, and with nothing else; another study of the same name has another one."""
    changing = {name: part for name, part in effective_resolved(study, intents).items() if name not in _PINNED}
    canonical = json.dumps([study.id, changing], sort_keys=True, separators=(",", ":"))
    return f'"{sha256(canonical.encode()).hexdigest()[:20]}"'


def _outlook(session: Session, study: Study, spent: Spent) -> OutlookDocument | None:
    decision = events.latest_with_number(session, study.project_id, study.id, "expected_improvement")
    if decision is None:
        return None
    found = outlook(decision.payload["numbers"], spent, max(study.resolved["ladder"]))
    if found is None:
        return None
    return OutlookDocument.model_validate({"decision": decision.payload["decision_number"], **asdict(found)})


def read_token(page_token: str) -> int:
    """Where a page begins. Raises InvalidRequest for a token that we did not give out."""
    if not page_token.isascii() or not page_token.isdigit() or len(page_token) > 18:
        raise InvalidRequest("page_token is not one of ours; send the next_page_token of the last answer.")
    return int(page_token)


def _summary(study: Study, summary: Summary, consumed: Consumed, pending: list[str]) -> dict[str, Any]:
    return {
        "name": study.name,
        "state": study.state,
        "message": study.message,
        "pending": pending,
        "labels": study.resolved["metadata"]["labels"],
        "max_trials": study.resolved["budget"]["max_trials"],
        "trials": summary.counts,
        "best": summary.best,
        "spent": spent_document(study, consumed),
        "usage": usage_document(consumed.usage),
        "savings": summary.savings,
        "created_at": study.created_at,
        "started_at": study.started_at,
        "finished_at": study.finished_at,
        "dashboard": None if study.optuna_study_id is None else f"/dashboard/studies/{study.optuna_study_id}",
    }
