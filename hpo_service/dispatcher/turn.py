"""Everything that waits in the inbox, and every open intent, in one transaction."""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from hpo_service.core.messages import EventKind, IntentKind
from hpo_service.core.study_rules import Cause
from hpo_service.dispatcher.jobs import deliveries, jobs
from hpo_service.dispatcher.jobs.jobs import EndedJob
from hpo_service.dispatcher.lifecycle.apply_command import forget, fulfil
from hpo_service.dispatcher.results.lost_attempts import Loss, losses
from hpo_service.dispatcher.results.slice_results import settle
from hpo_service.dispatcher.state.assignments import Fleet, lost_result
from hpo_service.dispatcher.state.inbox import Inbox, shown
from hpo_service.dispatcher.state.live_studies import LiveSlice, LiveStudy, load_study
from hpo_service.dispatcher.state.transaction import Context
from hpo_service.dispatcher.workers import quarantine
from hpo_service.executors.base import Token, WorkerGone
from hpo_service.storage.queries import attempt_ends, dispatch, workers
from hpo_service.storage.tables import DEFAULT_PROJECT_ID, Intent
from trainer.spec import Progress, SliceResult

Studies = dict[int, LiveStudy]


def register_workers(
    session: Session, inbox: Inbox, fleet: Fleet, *, executor: str, epoch: int, refused: Collection[str] = ()
) -> dict[str, int]:
    """Write the workers that became ready, except the `refused`; their row ids by name."""
    return {
        event.worker: workers.register(
            session,
            executor=executor,
            name=event.worker,
            node=event.node,
            places=event.places,
            device=event.ready.device,
            software=event.ready.software,
            auto_dtype=event.ready.auto_dtype,
            epoch=epoch,
        )
        for event in inbox.ready
        if event.worker not in fleet.worker_ids and event.worker not in refused
    }


@dataclass(kw_only=True)
class Asked:
    """What follows from what the API asked for: studies (ids) that were deleted, and what the executor is to do."""

    deleted: set[int] = field(default_factory=set)
    orders: list[quarantine.Order] = field(default_factory=list)


def fulfil_intents(session: Session, context: Context, studies: Studies) -> Asked:
    """Do what the API asked for, in the order it was asked."""
    asked = Asked()
    for intent in dispatch.open_intents(session):
        if intent.study_id is None:
            asked.orders += _fulfil_for_all(session, context, studies, intent)
            continue
        study = studies.get(intent.study_id)
        if study is None:
            row = dispatch.study(session, intent.study_id)
            study = studies[intent.study_id] = load_study(session, row, context.mlflow_url)
        if fulfil(session, study, intent) and intent.kind == IntentKind.DELETE:
            asked.deleted |= {study.id} | _forget_confirmation(session, studies, study)
    return asked


def _fulfil_for_all(session: Session, context: Context, studies: Studies, intent: Intent) -> list[quarantine.Order]:
    """Do what is bound to no study."""
    if intent.kind in quarantine.WORKER_INTENTS:
        return quarantine.fulfil(session, context, studies.values(), intent)
    if intent.kind == IntentKind.TELL_PROMOTION:
        _tell_promotion(session, intent)
        return []
    if intent.kind == IntentKind.DELIVER:
        deliveries.begin(session, context.jobs, intent)
    else:
        jobs.add_job(session, context.jobs, intent)
    dispatch.finish_intent(session, intent.id, None)
    return []


def _tell_promotion(session: Session, intent: Intent) -> None:
    """Nothing is to be done but to make it an event, in order with all others."""
    asked = intent.payload
    kind = EventKind(asked["event"])
    dispatch.add_event(session, intent.project_id, asked["study_id"], kind, asked["payload"], asked["trial"])
    dispatch.finish_intent(session, intent.id, None)


def _forget_confirmation(session: Session, studies: Studies, study: LiveStudy) -> set[int]:
    """It goes with the study that it confirms, and has ended like it. Its id, if there is one."""
    if study.child_id is None:
        return set()
    row = dispatch.study(session, study.child_id)
    child = studies[study.child_id] = load_study(session, row, study.mlflow_url)
    forget(session, child)
    return {child.id}


@dataclass(frozen=True, kw_only=True)
class Ended:
    """Attempts that ended, of slices and of jobs, the results of slices that counted, and jobs that are over."""

    tokens: set[Token]
    settled: list[SliceResult]
    jobs: list[EndedJob]


def settle_ended(session: Session, context: Context, studies: Studies, registered: Mapping[str, int]) -> Ended:
    """Settle every attempt that ended by itself or with its worker."""
    inbox, prices = context.inbox, context.prices
    tokens = inbox.reported()
    _note_repeatable(session, context, registered)
    owner = {piece.id: study for study in studies.values() for piece in study.slices.values()}
    lost: list[Loss] = []
    for gone in inbox.gone:
        worker_id = context.fleet.worker_ids.get(gone.worker) or registered.get(gone.worker)
        if worker_id is not None:
            workers.end(session, worker_id, gone.reason)
        held = context.fleet.lost_with(gone.worker, tokens)
        if worker_id is not None or gone.cause is not Cause.WORKER_ENDED:
            _tell_end(session, {owner[token[0]].id: owner[token[0]] for token in held if token[0] in owner}, gone)
        slices, held_jobs = (
            [token for token in held if jobs.runs_beside(context.jobs, token) is beside] for beside in (False, True)
        )
        lost += losses(gone, slices, held_jobs, context.liveness)
        tokens.update(held)
    over = [jobs.settle(session, context.jobs, studies.values(), result, prices=prices) for result in inbox.job_results]
    over += [
        deliveries.settle_training(session, context.jobs, result, prices=prices)
        for result in inbox.results
        if result.slice_id in context.jobs
    ]
    settled = [
        result
        for result in inbox.results
        if result.slice_id in owner and settle(session, owner[result.slice_id], result, prices=prices)
    ]
    over += [_settle_loss(session, context, studies, owner.get(loss.token[0]), loss) for loss in lost]
    ended = [job for job in over if job is not None]
    for job in ended:
        deliveries.follow(session, context.jobs, job)
    return Ended(tokens=tokens, settled=settled, jobs=ended)


def _note_repeatable(session: Session, context: Context, registered: Mapping[str, int]) -> None:
    """Keep what the workers found out by taking a step twice; one that cannot repeat it is an event."""
    for result in context.inbox.results:
        worker = context.fleet.holder((result.slice_id, result.attempt))
        worker_id = None if worker is None else context.fleet.worker_ids.get(worker) or registered.get(worker)
        if result.repeatable is None or worker_id is None:
            continue
        workers.note_repeatable(session, worker_id, result.repeatable)
        if not result.repeatable:
            said = next((notice.message for notice in result.notices if notice.kind == "not_repeatable"), "")
            payload = {"worker": worker, "message": said}
            dispatch.add_event(session, DEFAULT_PROJECT_ID, None, EventKind.WORKER_NOT_REPEATABLE, payload)


def _settle_loss(
    session: Session, context: Context, studies: Studies, study: LiveStudy | None, loss: Loss
) -> EndedJob | None:
    if study is not None:
        result = lost_result(loss.token, loss.reason)
        settle(session, study, result, prices=context.prices, cause=loss.cause, alone=loss.alone, sharing=loss.sharing)
    elif loss.token[0] in context.jobs:
        lost_job = jobs.lost(loss.token, loss.reason)
        return jobs.settle(session, context.jobs, studies.values(), lost_job, prices=context.prices, cause=loss.cause)
    return None


def _tell_end(session: Session, concerned: Mapping[int, LiveStudy], gone: WorkerGone) -> None:
    """Events of a worker's end: one of the service, one of each study that it held a slice of."""
    payload = {"worker": gone.worker, "cause": str(gone.cause), "message": gone.reason}
    on_purpose = gone.cause is Cause.WORKER_ENDED
    kind = EventKind.WORKER_ENDED if on_purpose else EventKind.WORKER_LOST
    dispatch.add_event(session, DEFAULT_PROJECT_ID, None, kind, payload)
    for study in concerned.values():
        dispatch.add_event(session, study.project_id, study.id, EventKind.WORKER_LOST, payload)


def note_progress(session: Session, studies: Studies, inbox: Inbox, open_jobs: jobs.Jobs) -> None:
    """Keep signs of life, and make the snapshots inside running slices known."""
    deliveries.note_progress(session, open_jobs, inbox)
    running = {piece.token: study for study in studies.values() for piece in study.running()}
    for progress in inbox.checkpoints:
        token = (progress.slice_id, progress.attempt)
        if token in running:
            _note_checkpoint(session, running[token], progress)
    for token, progress in inbox.progress.items():
        if token in running:
            _note_begun(running[token].slices[token[0]])
            dispatch.set_progress(session, token, shown(progress))


def _note_begun(piece: LiveSlice) -> None:
    if piece.queued_seconds is None:
        piece.queued_seconds = time.monotonic() - piece.begun_at


def _note_checkpoint(session: Session, study: LiveStudy, progress: Progress) -> None:
    assert progress.checkpoint is not None
    known, checkpoint = dispatch.slice_snapshots(session, progress.slice_id), progress.checkpoint.model_dump()
    if checkpoint in known:
        # A worker that outlived a dispatcher tells the next one again.
        return
    attempt_ends.set_snapshots(session, progress.slice_id, [checkpoint, *known])
    payload = {
        "slice_id": progress.slice_id,
        "attempt": progress.attempt,
        "examples_seen": progress.checkpoint.examples_seen,
    }
    trial = study.slices[progress.slice_id].trial_number
    dispatch.add_event(session, study.project_id, study.id, EventKind.SLICE_PROGRESS, payload, trial)
