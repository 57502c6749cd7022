"""What is written of a promotion: the document that is exported, and the facts behind it."""

from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Any

from sqlalchemy.orm import Session

from hpo_service import exporters
from hpo_service.exporters.document import StudyFacts
from hpo_service.search.best import Best
from hpo_service.services.promotions import verdict as promotion
from hpo_service.services.promotions.schemas import (
    BillDocument,
    ComparisonDocument,
    DigestsDocument,
    EnvironmentDocument,
    LossesDocument,
    PromotionFacts,
)
from hpo_service.services.promotions.verdict import Comparison
from hpo_service.spec import ResolvedStudy
from hpo_service.storage.queries import promotions, studies
from hpo_service.storage.queries.usage import consumed_by_study, dispatched_by_trial
from hpo_service.storage.tables import Study
from trainer.spec import SnapshotManifest, SnapshotRef, TrialFile


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A trial that may be promoted, as the database knows it."""

    study_id: int
    best: Best
    comparison: Comparison | None
    test_loss: float | None
    snapshot: SnapshotRef
    next_best: int | None


def document(
    session: Session,
    study: Study,
    candidate: Candidate,
    manifest: SnapshotManifest,
    at: datetime,
    told: dict[str, Any],
) -> TrialFile:
    """The trial with where it comes from; `told` are further members of its provenance."""
    resolved = ResolvedStudy.model_validate(study.resolved)
    about = StudyFacts(
        name=study.name,
        project=studies.project_name(session, study.project_id),
        strategy=resolved.search.strategy,
        seed=resolved.search.seed,
        base_digest=manifest.base_digest,
        train_digest=manifest.data_fingerprints.train,
        eval_digest=manifest.data_fingerprints.eval,
    )
    made = exporters.best_document(about, candidate.best, resolved, now=at)
    return made.model_copy(update={"provenance": made.provenance | told})


def facts(
    session: Session,
    study: Study,
    candidate: Candidate,
    manifest: SnapshotManifest,
    document: TrialFile,
    commit: str | None,
) -> PromotionFacts:
    """Why the parameters may be used, as far as it is known now."""
    return PromotionFacts(
        verdict=promotion.verdict(candidate.best, candidate.comparison),
        losses=_losses(candidate),
        comparison=_comparison(candidate.comparison),
        digests=_digests(session, study, document, candidate, manifest),
        environment=_environment(session, study, candidate, commit),
        bill=_bill(session, study, candidate),
    )


def _losses(candidate: Candidate) -> LossesDocument:
    best = candidate.best
    known, searched = best.confirmed, best.searched
    return LossesDocument(
        searched_loss=(searched.loss if searched is not None else None) if known is not None else best.loss,
        searched_examples=(searched.examples if searched is not None else None) if known is not None else best.examples,
        confirmed_loss=None if known is None else known.mean,
        confirmed_spread=None if known is None else known.spread,
        confirmed_seeds=0 if known is None else known.seeds,
        test_loss=candidate.test_loss,
    )


def _comparison(found: Comparison | None) -> ComparisonDocument | None:
    if found is None:
        return None
    return ComparisonDocument(
        baseline_trial=found.baseline_trial,
        baseline_loss=found.baseline_loss,
        loss=found.loss,
        examples=found.examples,
        baseline_examples=found.baseline_examples,
        difference=found.difference,
        half_width=found.half_width,
        seeds=found.seeds,
        better=found.better,
    )


def _digests(
    session: Session, study: Study, document: TrialFile, candidate: Candidate, manifest: SnapshotManifest
) -> DigestsDocument:
    """A search looks at no test rows, so its snapshots do not know them; its confirmation does."""
    rows, confirmation = manifest.data_fingerprints, studies.confirmation_of(session, study)
    seen = {} if confirmation is None else confirmation.data_fingerprints or {}
    return DigestsDocument(
        trial=document.trial().digest(),
        snapshot=candidate.snapshot.digest,
        base_model=manifest.base_digest,
        train=rows.train,
        eval=rows.eval,
        test=rows.test or seen.get("test"),
    )


def _environment(session: Session, study: Study, candidate: Candidate, commit: str | None) -> EnvironmentDocument:
    ran = promotions.surroundings(session, study.project_id, study.id, candidate.best.trial_number)
    return EnvironmentDocument(
        device="" if ran is None else ran.device,
        dtype="" if ran is None else ran.dtype,
        attention="" if ran is None else ran.attention,
        repeatable=None if ran is None else ran.repeatable,
        software={} if ran is None else ran.software,
        generator=f"hpo-service {version('hpo-service')}",
        commit=commit,
    )


def _bill(session: Session, study: Study, candidate: Candidate) -> BillDocument:
    number = candidate.best.trial_number
    child = studies.confirmation_of(session, study)
    ids = [study.id] if child is None else [study.id, child.id]
    consumed = consumed_by_study(session, study.project_id, ids)
    trial = dispatched_by_trial(session, study.project_id, study.id, [number])[number]
    spent, again = consumed[study.id].spent, None if child is None else consumed[child.id].spent
    return BillDocument(
        trial_seconds=trial.seconds,
        trial_usd=trial.usd,
        study_seconds=spent.seconds,
        study_usd=spent.usd,
        confirmation_seconds=0.0 if again is None else again.seconds,
        confirmation_usd=0.0 if again is None else again.usd,
    )
