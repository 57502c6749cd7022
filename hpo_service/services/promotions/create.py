"""Making a promotion: the trial is found and judged, its snapshot verified, then everything is written at once."""

from sqlalchemy.orm import Session, sessionmaker

from hpo_service.auth.principals import Principal
from hpo_service.core.errors import Conflict, NotFound
from hpo_service.search.best import Best, best_trial, judged
from hpo_service.services.promotions import facts as promotion_facts
from hpo_service.services.promotions import verdict as promotion
from hpo_service.services.promotions.comparison import read_comparison
from hpo_service.services.promotions.facts import Candidate
from hpo_service.services.promotions.read import promotion_document
from hpo_service.services.promotions.schemas import PromoteRequest, PromotionDocument
from hpo_service.services.studies.summaries import read_leaders
from hpo_service.services.trials.artifacts import away
from hpo_service.services.trials.optuna_trials import StudyFacts, TrialFacts
from hpo_service.services.trials.read import find_trial
from hpo_service.storage.promotion_tables import Promotion
from hpo_service.storage.queries import attempts, audit, promotions, studies
from hpo_service.storage.tables import Study
from trainer.common.errors import SnapshotError
from trainer.snapshots.stores import Store
from trainer.snapshots.stores.base import ADAPTER, ADAPTER_CONFIG
from trainer.snapshots.stores.verify import open_files, verified_manifest
from trainer.spec import SnapshotManifest, SnapshotRef


def choose(session: Session, project_id: int, request: PromoteRequest) -> Candidate:
    """The trial that is asked for, else the best one.

    Raises:
        NotFound: no such study or trial, or no trial has reached a rung.
        Conflict: the trial was not trained to its end, failed, or has no snapshot.
    """
    study = studies.find(session, project_id, request.study)
    facts = read_leaders(session, study)
    best = facts.winner
    if request.trial is not None:
        best = _asked_for(session, project_id, study, facts, request.trial)
    if best is None:
        raise NotFound(f"no trial of study {study.name!r} has reached a rung yet; promote one later.")
    if best.provisional:
        raise Conflict(
            f"trial {best.trial_number} of study {study.name!r} was not trained to its end (it has seen "
            f"{best.examples} examples); wait for it, or name a complete trial with --trial."
            if request.trial is not None
            else f"no searched trial of study {study.name!r} was trained to its end (trial {best.trial_number} leads, "
            f"after {best.examples} examples); wait for one, or name a complete trial with --trial."
        )
    found = attempts.snapshots_of_trial(session, project_id, study.id, best.trial_number)
    rest = [trial for trial in facts.trials if trial.number != best.trial_number and trial.state == "COMPLETE"]
    other = best_trial(rest, [one for one in facts.confirmed if one.trial_number != best.trial_number])
    if not found:
        raise _not_whole(study.name, best.trial_number, "it has none", None if other is None else other.trial_number)
    return Candidate(
        study_id=study.id,
        best=best,
        comparison=read_comparison(session, study, best),
        test_loss=best.confirmed.test_loss if best.confirmed is not None else None,
        snapshot=SnapshotRef.model_validate(found[0]),
        next_best=None if other is None else other.trial_number,
    )


def verify(candidate: Candidate, study: str, store: Store) -> SnapshotManifest:
    """The manifest of the trial's newest snapshot. No transaction may be open: the adapter is read as a whole.

    Raises:
        Conflict: it is missing or not what was recorded; the next best trial is named.
        Unavailable: the snapshot store does not answer.
    """
    try:
        for _, _, file in open_files(store, candidate.snapshot, (ADAPTER_CONFIG, ADAPTER)):
            file.close()
        return verified_manifest(store, candidate.snapshot)
    except SnapshotError as error:
        raise _not_whole(study, candidate.best.trial_number, str(error), candidate.next_best) from error
    except OSError as error:
        raise away(store, error) from error


def write(
    session: Session,
    caller: Principal,
    request: PromoteRequest,
    candidate: Candidate,
    manifest: SnapshotManifest,
    commit: str | None,
) -> PromotionDocument:
    """The next version of the name. `commit` is the service's own."""
    project_id = caller.project_id
    study = studies.find(session, project_id, request.study)
    if study.id != candidate.study_id:
        raise Conflict(f"study {request.study!r} was deleted and made anew meanwhile; promote again.")
    promotions.lock(session, project_id, request.name)
    number = promotions.next_version(session, project_id, request.name)
    at = promotions.now(session)
    told = {
        "promotion": f"{request.name}@{number}",
        "promoted_by": promotions.key_label(session, project_id, caller.key_id),
        "verdict": promotion.verdict(candidate.best, candidate.comparison),
        **({"commit": commit} if commit else {}),
    }
    document = promotion_facts.document(session, study, candidate, manifest, at, told)
    facts = promotion_facts.facts(session, study, candidate, manifest, document, commit)
    row = Promotion(
        project_id=project_id,
        name=request.name,
        version=number,
        study_id=study.id,
        trial_number=candidate.best.trial_number,
        document=document.model_dump(mode="json", by_alias=True),
        facts=facts.model_dump(mode="json"),
        needs_approval=promotions.asks_for_approval(session, project_id),
        note=request.note,
        api_key_id=caller.key_id,
        created_at=at,
    )
    promotions.add(session, row)
    audit.tell(session, f"promotions/{request.name}/{number}", study=study.name, trial=candidate.best.trial_number)
    return promotion_document(promotions.find(session, project_id, request.name, number))


def prepare(
    sessions: sessionmaker[Session], caller: Principal, request: PromoteRequest, store: Store
) -> tuple[Candidate, SnapshotManifest]:
    """What `write` needs: found in one transaction, verified outside of any.

    Raises:
        NotFound, Conflict, Unavailable: as `choose` and `verify`.
    """
    with sessions.begin() as session:
        candidate = choose(session, caller.project_id, request)
    return candidate, verify(candidate, request.study, store)


def _asked_for(session: Session, project_id: int, study: Study, facts: StudyFacts, number: int) -> Best:
    _, trial = find_trial(session, project_id, study.name, number)
    known: dict[int, TrialFacts] = {one.number: one for one in (*facts.trials, trial)}
    found = judged(number, list(known.values()), facts.confirmed)
    if found is None:
        raise Conflict(f"trial {number} of study {study.name!r} failed or has no loss; name another one.")
    return found


def _not_whole(study: str, number: int, why: str, other: int | None) -> Conflict:
    offer = "" if other is None else f" The next best trial is {other}: promote it with --trial {other}."
    return Conflict(f"trial {number} of study {study!r} has no snapshot that verifies: {why}.{offer}")
