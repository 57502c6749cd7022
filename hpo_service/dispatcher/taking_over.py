"""From a lease that was won, or a memory that was dropped, to studies in memory."""

import logging

from hpo_service.dispatcher import endings, jobs
from hpo_service.dispatcher.context import Context
from hpo_service.dispatcher.fleet import lost_result
from hpo_service.dispatcher.memory import LiveStudy, load_studies
from hpo_service.dispatcher.settling import settle
from hpo_service.domain import StudyState
from hpo_service.repository import dispatch
from hpo_service.repository.jobs import lose_running
from trainer.failpoints import Commit, after_commit, before_commit

log = logging.getLogger(__name__)

_ENDING = frozenset({StudyState.PAUSING, StudyState.CANCELLING, StudyState.STOPPING})


def load(context: Context) -> dict[int, LiveStudy]:
    """The studies in memory, read if they are not there; after a take-over without the attempts of the past."""
    if context.studies is not None:
        return context.studies
    context.proposals.clear()
    with context.sessions.begin() as session:
        context.leadership.fence(session)
        if not context.taken_over and context.leadership.epoch is not None:
            lost = dispatch.lose_attempts(session, context.leadership.epoch, "the dispatcher was restarted")
            lost += lose_running(session)
            log.info("leading with epoch %d; %d attempts of the past are lost", context.leadership.epoch, lost)
        studies = load_studies(session)
        context.jobs = jobs.load_jobs(session)
        before_commit(Commit.TAKE_OVER)
    after_commit(Commit.TAKE_OVER)
    context.taken_over = True
    context.studies = studies
    _catch_up(context, studies)
    return studies


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
                settle(session, study, lost_result(token, reason), prices=prices, blameless=True)
            for token in unknown_jobs:
                jobs.settle(session, context.jobs, [], jobs.lost(token, reason), prices=prices, blameless=True)
            for study in ending:
                endings.conclude(session, study)
