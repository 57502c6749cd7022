"""The confirmation of a study, read from the study that runs it."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from hpo_service.core.errors import Conflict, NotFound
from hpo_service.core.study_rules import TERMINAL, StudyState
from hpo_service.search.best import Confirmed
from hpo_service.search.confirmation.race import most_runs
from hpo_service.search.confirmation.report import Report, Standing, report
from hpo_service.search.confirmation.runs import run_facts
from hpo_service.search.confirmation.sentence import sentence
from hpo_service.services.common.usage import spent_document
from hpo_service.services.confirmations.schemas import (
    CandidateDocument,
    ConfirmationDocument,
    ConfirmedDocument,
    DifferenceDocument,
    RunDocument,
)
from hpo_service.spec import ResolvedStudy
from hpo_service.spec.confirmation import CONFIRMATION_SUFFIX, ConfirmationPlan
from hpo_service.storage.queries import attempts, optuna_reads, studies
from hpo_service.storage.queries.optuna_reads import TrialRow
from hpo_service.storage.queries.usage import consumed_by_study
from hpo_service.storage.tables import Study


@dataclass(frozen=True)
class Confirmation:
    """What is known of it. `child` is the study whose trials are the runs."""

    child: Study
    plan: ConfirmationPlan
    report: Report


def read_confirmation(session: Session, study: Study) -> Confirmation | None:
    """None before the search has ended, and where nothing is confirmed."""
    child = studies.confirmation_of(session, study)
    return None if child is None else _read(session, child)


def confirmed_by_study(session: Session, project_id: int, study_ids: Sequence[int]) -> dict[int, tuple[Confirmed, ...]]:
    """The finalists of the confirmations of these studies that have ended well."""
    children = studies.confirmations_of(session, project_id, study_ids)
    return {parent: finalists(_read(session, child)) for parent, child in children.items() if _has_ended_well(child)}


def finalists(found: Confirmation | None) -> tuple[Confirmed, ...]:
    """The finalists of a confirmation that has ended well; none before."""
    return found.report.finalists if found is not None and _has_ended_well(found.child) else ()


def _has_ended_well(child: Study) -> bool:
    return StudyState(child.state) is StudyState.COMPLETED


def _read(session: Session, child: Study) -> Confirmation:
    resolved = ResolvedStudy.model_validate(child.resolved)
    assert resolved.confirmation is not None
    rows: Sequence[TrialRow] = ()
    if child.optuna_study_id is not None:
        rows = optuna_reads.read_trials(session.connection(), child.optuna_study_id)
    folds = attempts.fold_losses(session, child.project_id, child.id)
    runs = [
        run_facts(row.number, row.state.name, row.user_attrs, row.intermediate_values, folds.get(row.number, {}))
        for row in rows
    ]
    return Confirmation(child, resolved.confirmation, report(resolved.confirmation, runs))


def show_confirmation(session: Session, project_id: int, name: str) -> ConfirmationDocument:
    """Raises NotFound if there is none (yet)."""
    document = confirmation_document(session, read_confirmation(session, studies.find(session, project_id, name)))
    if document is None:
        raise _none(name)
    return document


def child_name(session: Session, project_id: int, name: str) -> str:
    """The name of the study whose trials are the runs. Raises NotFound."""
    if studies.confirmation_of(session, studies.find(session, project_id, name)) is None:
        raise _none(name)
    return name + CONFIRMATION_SUFFIX


def require_searching(session: Session, study: Study, what: str) -> None:
    """Raise Conflict if the search has ended and its best are being confirmed."""
    if studies.confirmation_of(session, study) is not None:
        raise Conflict(f"the search of study {study.name!r} has ended and it cannot {what}; clone it instead.")


def confirmation_document(session: Session, found: Confirmation | None) -> ConfirmationDocument | None:
    """The confirmation as the API shows it."""
    if found is None:
        return None
    child, plan = found.child, found.plan
    consumed = consumed_by_study(session, child.project_id, [child.id])[child.id]
    return ConfirmationDocument(
        state=StudyState(child.state),
        message=child.message,
        sentence=sentence(found.report, over=StudyState(child.state) in TERMINAL),
        runs=sum(run.state != "running" for one in found.report.standings for run in one.runs),
        most_runs=most_runs(plan),
        max_examples=plan.max_examples,
        spent=spent_document(child, consumed),
        candidates=[_candidate(plan, one) for one in found.report.standings],
        differences=[
            DifferenceDocument(
                trial_number=one.candidate,
                other_trial_number=one.other,
                seeds=one.seeds,
                mean=one.mean,
                half_width=one.half_width,
                separated=one.separated,
            )
            for one in found.report.differences
        ],
        dashboard=None if child.optuna_study_id is None else f"/dashboard/studies/{child.optuna_study_id}",
    )


def confirmed_document(known: Confirmed | None) -> ConfirmedDocument | None:
    """What the winner reached, as the API shows it."""
    if known is None:
        return None
    return ConfirmedDocument(
        mean=known.mean,
        spread=known.spread,
        seeds=known.seeds,
        test_loss=known.test_loss,
        shared_seeds=known.shared_seeds,
        difference=known.difference,
        half_width=known.half_width,
    )


def _none(name: str) -> NotFound:
    return NotFound(f"study {name!r} has no confirmation: its spec has no `confirm`, or its search goes on.")


def _candidate(plan: ConfirmationPlan, standing: Standing) -> CandidateDocument:
    planned = plan.candidate(standing.trial_number)
    return CandidateDocument(
        trial_number=standing.trial_number,
        baseline=standing.baseline,
        searched_loss=planned.loss,
        searched_examples=planned.examples,
        seeds=standing.seeds,
        mean=standing.mean,
        spread=standing.spread,
        test_loss=standing.test_loss,
        out=None if standing.out is None else standing.out.words,
        runs=[
            RunDocument(
                trial_number=run.trial_number,
                seed=run.seed,
                state=run.state,
                loss=run.loss,
                test_loss=run.test_loss,
            )
            for run in standing.runs
        ],
    )
