"""Everything that waits in the inbox, and every open intent, in one transaction."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

from sqlalchemy.orm import Session

from hpo_service.dispatcher import jobs
from hpo_service.dispatcher.fleet import Fleet, Token, lost_result
from hpo_service.dispatcher.fulfilment import forget, fulfil
from hpo_service.dispatcher.inbox import Inbox
from hpo_service.dispatcher.memory import LiveStudy, load_study
from hpo_service.dispatcher.settling import settle
from hpo_service.intents import EventKind, IntentKind
from hpo_service.prices import Prices
from hpo_service.repository import dispatch
from trainer.spec import Progress, SliceResult

Studies = dict[int, LiveStudy]


def register_workers(
    session: Session, inbox: Inbox, fleet: Fleet, *, executor: str, epoch: int, refused: Collection[str] = ()
) -> dict[str, int]:
    """Write the workers that became ready, except the `refused`; their row ids by name."""
    return {
        event.worker: dispatch.add_worker(
            session,
            executor=executor,
            name=event.worker,
            device=event.ready.device,
            software=event.ready.software,
            epoch=epoch,
        )
        for event in inbox.ready
        if event.worker not in fleet.worker_ids and event.worker not in refused
    }


def fulfil_intents(session: Session, studies: Studies, open_jobs: jobs.Jobs) -> set[int]:
    """Do what the API asked for, in the order it was asked. Ids of the studies that were deleted."""
    deleted = set()
    for intent in dispatch.open_intents(session):
        if intent.study_id is None:
            jobs.add_job(session, open_jobs, intent)
            dispatch.finish_intent(session, intent.id, None)
            continue
        study = studies.get(intent.study_id)
        if study is None:
            study = studies[intent.study_id] = load_study(session, dispatch.study(session, intent.study_id))
        if fulfil(session, study, intent) and intent.kind == IntentKind.DELETE:
            deleted |= {study.id} | _forget_confirmation(session, studies, study)
    return deleted


def _forget_confirmation(session: Session, studies: Studies, study: LiveStudy) -> set[int]:
    """It goes with the study that it confirms, and has ended like it. Its id, if there is one."""
    if study.child_id is None:
        return set()
    child = studies[study.child_id] = load_study(session, dispatch.study(session, study.child_id))
    forget(session, child)
    return {child.id}


@dataclass(frozen=True, kw_only=True)
class Ended:
    """Attempts that ended, of slices and of jobs, and the results of slices that counted."""

    tokens: set[Token]
    settled: list[SliceResult]


def settle_ended(
    session: Session, studies: Studies, open_jobs: jobs.Jobs, inbox: Inbox, fleet: Fleet, prices: Prices
) -> Ended:
    """Settle every attempt that ended by itself or with its worker."""
    results, job_results = list(inbox.results), list(inbox.job_results)
    tokens = inbox.reported()
    owner = {piece.id: study for study in studies.values() for piece in study.slices.values()}
    for gone in inbox.gone:
        worker_id = fleet.worker_ids.get(gone.worker)
        if worker_id is not None:
            dispatch.end_worker(session, worker_id, gone.reason)
        lost = fleet.lost_with(gone.worker, tokens)
        for study_id in {owner[token[0]].id for token in lost if token[0] in owner}:
            payload = {"worker": gone.worker, "message": gone.reason}
            dispatch.add_event(session, studies[study_id].project_id, study_id, EventKind.WORKER_LOST, payload)
        results.extend(lost_result(token, gone.reason) for token in lost if token[0] not in open_jobs)
        job_results.extend(jobs.lost(token, gone.reason) for token in lost if token[0] in open_jobs)
        tokens.update(lost)
    settle_job = partial(jobs.settle, session, open_jobs, studies.values(), prices=prices)
    for job_result in job_results:
        settle_job(job_result)
    settled = [
        result
        for result in results
        if result.slice_id in owner and settle(session, owner[result.slice_id], result, prices=prices)
    ]
    return Ended(tokens=tokens, settled=settled)


def note_progress(session: Session, studies: Studies, inbox: Inbox) -> None:
    """Keep signs of life, and make the snapshots inside running slices known."""
    running = {piece.token: study for study in studies.values() for piece in study.running()}
    for progress in inbox.checkpoints:
        token = (progress.slice_id, progress.attempt)
        if token in running:
            _note_checkpoint(session, running[token], progress)
    for token, progress in inbox.progress.items():
        if token in running:
            shown = progress.model_dump(mode="json", exclude={"type", "slice_id", "attempt", "checkpoint"})
            dispatch.set_progress(session, token, shown)


def _note_checkpoint(session: Session, study: LiveStudy, progress: Progress) -> None:
    assert progress.checkpoint is not None
    known = dispatch.slice_snapshots(session, progress.slice_id)
    dispatch.set_snapshots(session, progress.slice_id, [progress.checkpoint.model_dump(), *known])
    payload = {
        "slice_id": progress.slice_id,
        "attempt": progress.attempt,
        "examples_seen": progress.checkpoint.examples_seen,
    }
    trial = study.slices[progress.slice_id].trial_number
    dispatch.add_event(session, study.project_id, study.id, EventKind.SLICE_PROGRESS, payload, trial)
