"""From a lease that was won, or a memory that was dropped, to studies in memory."""

import logging
from collections.abc import Mapping, Sequence

from hpo_service.core.messages import EventKind
from hpo_service.core.study_rules import Cause, StudyState
from hpo_service.dispatcher.jobs import jobs
from hpo_service.dispatcher.lifecycle import study_state
from hpo_service.dispatcher.results.slice_results import settle
from hpo_service.dispatcher.state.assignments import lost_result
from hpo_service.dispatcher.state.live_studies import LiveStudy, load_studies
from hpo_service.dispatcher.state.transaction import Context
from hpo_service.dispatcher.workers import quarantine
from hpo_service.executors.base import Token
from hpo_service.storage.queries import dispatch
from hpo_service.storage.queries.take_over import Kept, keep, lose_attempts
from hpo_service.storage.tables import DEFAULT_PROJECT_ID
from trainer.common.failpoints import Commit, after_commit, before_commit

log = logging.getLogger(__name__)

_ENDING = frozenset({StudyState.PAUSING, StudyState.CANCELLING, StudyState.STOPPING})


def load(context: Context) -> dict[int, LiveStudy]:
    """The studies in memory, read if they are not there; after a take-over without the attempts of the past."""
    if context.studies is not None:
        return context.studies
    context.proposals.clear()
    held = {} if context.taken_over else _meet_workers(context)
    kept = Kept()
    with context.sessions.begin() as session:
        context.leadership.fence(session)
        if not context.taken_over and context.leadership.epoch is not None:
            epoch = context.leadership.epoch
            kept = keep(session, context.executor.name, epoch, held)
            price = context.prices.usd_per_device_hour
            lost = lose_attempts(session, epoch, "the dispatcher was restarted", kept, price)
            log.info("leading with epoch %d; %d attempts go on, %d are lost", epoch, len(kept.attempts), lost)
            payload = {"epoch": epoch, "holder": context.leadership.holder}
            payload |= {"attempts_kept": len(kept.attempts), "attempts_lost": lost}
            dispatch.add_event(session, DEFAULT_PROJECT_ID, None, EventKind.DISPATCHER_TOOK_OVER, payload)
        studies = load_studies(session, context.mlflow_url)
        context.jobs = jobs.load_jobs(session)
        before_commit(Commit.TAKE_OVER)
    after_commit(Commit.TAKE_OVER)
    context.taken_over = True
    context.studies = studies
    _adopt(context, held, kept)
    _catch_up(context, studies)
    return studies


def _meet_workers(context: Context) -> Mapping[str, Sequence[Token]]:
    """Start the executor, once; the workers of earlier dispatchers that it found, and what they hold."""
    if not context.started:
        quarantine.tell_again(context)
        context.executor.start()
        context.started = True
    return context.executor.reattach()


def _adopt(context: Context, held: Mapping[str, Sequence[Token]], kept: Kept) -> None:
    """What goes on is in flight, what does not count any more is to stop."""
    # What the executor has to say of its workers comes before anything is placed on them.
    context.listen(0.0)
    context.liveness.adopt(kept.attempts)
    context.fleet.worker_ids |= kept.workers
    for token, worker in kept.attempts.items():
        context.fleet.assign(token, worker)
    if kept.workers:
        quarantine.drain_again(context)
    for token in {token for tokens in held.values() for token in tokens} - set(kept.attempts):
        context.executor.stop(token)


def _catch_up(context: Context, studies: dict[int, LiveStudy]) -> None:
    """Attempts that were committed but never reached a worker are lost, through nobody's fault.

    A study that waited for the end of attempts that a take-over lost need not wait any more.
    """
    reason, prices, fleet = "the attempt was never handed to a worker", context.prices, context.fleet
    unknown = [
        (study, piece.token) for study in studies.values() for piece in study.running() if not fleet.holds(piece.token)
    ]
    unknown_jobs = [job.token for job in context.jobs.values() if job.running and not fleet.holds(job.token)]
    ending = [study for study in studies.values() if study.state in _ENDING and not study.running()]
    if unknown or unknown_jobs or ending:
        with context.writing(Commit.CATCH_UP) as session:
            for study, token in unknown:
                settle(session, study, lost_result(token, reason), prices=prices, cause=Cause.NEVER_SENT)
            for token in unknown_jobs:
                lost = jobs.lost(token, reason)
                jobs.settle(session, context.jobs, [], lost, prices=prices, cause=Cause.NEVER_SENT)
            for study in ending:
                study_state.conclude(session, study)
