"""Filling free slots: jobs, due attempts, then what the strategies propose."""

import logging

from sqlalchemy.orm import Session

from hpo_service.dispatcher import endings, jobs, placing
from hpo_service.dispatcher.context import Context
from hpo_service.dispatcher.memory import LiveSlice, LiveStudy
from hpo_service.domain import TERMINAL, StudyState, exhausted
from hpo_service.repository import dispatch
from hpo_service.strategies.base import Advance, Finished, Start
from trainer.failpoints import Commit, Failpoint, reach

log = logging.getLogger(__name__)

_ACTIVE = frozenset({StudyState.QUEUED, StudyState.RUNNING})


def fill(context: Context, studies: dict[int, LiveStudy]) -> None:
    """Hand out what fits now."""
    _place_jobs(context)
    _place(context, studies)


def _place_jobs(context: Context) -> None:
    """Oldest first, to any worker without one; they take no slot."""
    for job in [job for job in context.jobs.values() if not job.running]:
        work = job.next_attempt()
        worker = context.executor.choose(work, prefetch=False)
        if worker is None:
            return
        with context.writing(Commit.JOB) as session:
            jobs.begin(session, job, context.fleet.worker_ids[worker])
        context.fleet.assign(work.token, worker)
        context.executor.submit(work, worker)


def _place(context: Context, studies: dict[int, LiveStudy]) -> None:
    """Older studies first: fill the free slots with due attempts, then with proposals."""
    context.executor.demand([study.resolved.training.ranks for study in studies.values() if _works(study)])
    context.proposals.retain([study.id for study in studies.values() if _is_placed(study)])
    for study in list(studies.values()):
        if _is_placed(study):
            _place_study(context, study)
        if study.state in TERMINAL:
            del studies[study.id]


def _place_study(context: Context, study: LiveStudy) -> None:
    ranks, most = study.resolved.training.ranks, context.executor.largest_group
    if ranks > most:
        with context.writing(Commit.CONCLUDE) as session:
            endings.fail_study(
                session,
                study,
                f"resources.gpus_per_trial is {ranks} and the {context.executor.name} executor has {most} device(s); "
                "lower it, or give the dispatcher more (HPO_WORKERS)",
            )
        return
    for piece in study.waiting():
        if _free(context, study):
            _begin(context, study, piece)
    try:
        proposal = context.proposals.take(study.id)
    except Exception as error:
        log.exception("study %s: no next step could be computed", study.name)
        with context.writing(Commit.CONCLUDE) as session:
            endings.fail_study(session, study, f"no next step could be computed: {error}")
        return
    if proposal is not None and placing.still_valid(study, proposal):
        _follow(context, study, proposal)
    wants_more = study.state in _ACTIVE and not study.idle and not study.waiting()
    if wants_more and _free(context, study) and _within_budget(context, study):
        context.proposals.request(study, _slots(context, study))


def _follow(context: Context, study: LiveStudy, proposal: placing.Proposal) -> None:
    step = proposal.step
    if isinstance(step, Advance | Start):
        if _free(context, study):
            _accept(context, study, proposal)
    elif isinstance(step, Finished) and not study.slices:
        with context.writing(Commit.CONCLUDE) as session:
            endings.complete(session, study, step.reason)
    else:
        study.idle = True


def _free(context: Context, study: LiveStudy) -> bool:
    """Whether the study may get another slot now."""
    if len(study.running()) >= study.resolved.budget.max_parallel:
        return False
    free = context.executor.free_slots(not study.deterministic, study.resolved.training.ranks)
    return free > context.proposals.pending_of_others(study.id)


def _slots(context: Context, study: LiveStudy) -> int:
    """How many slices the study may have running; of a deterministic study it depends on the spec alone."""
    most = study.resolved.budget.max_parallel
    if study.deterministic:
        return most
    running = len(study.running())
    return max(1, min(most, running + context.executor.free_slots(False, study.resolved.training.ranks)))


def _within_budget(context: Context, study: LiveStudy) -> bool:
    """Whether more may be dispatched; the study stops once its budget is spent."""
    limits = study.resolved.limits()
    now = None
    if limits.deadline is not None:
        with context.sessions() as session:
            now = dispatch.database_now(session)
    reason = exhausted(limits, study.spent, now)
    if reason is None:
        return True
    with context.writing(Commit.CONCLUDE) as session:
        if study.state is StudyState.QUEUED:
            endings.complete(session, study, reason)
        else:
            endings.enter(session, study, StudyState.STOPPING, reason)
            endings.conclude(session, study)
    return False


def _accept(context: Context, study: LiveStudy, proposal: placing.Proposal) -> None:
    step = proposal.step
    assert isinstance(step, Advance | Start)
    with context.writing(Commit.ACCEPT) as session:
        piece = placing.accept(session, study, proposal)
        placement = _begin_in(context, session, study, piece, step)
    _submit(context, placement)


def _begin(context: Context, study: LiveStudy, piece: LiveSlice) -> None:
    with context.writing(Commit.RETRY) as session:
        placement = _begin_in(context, session, study, piece, None)
    _submit(context, placement)


def _begin_in(
    context: Context, session: Session, study: LiveStudy, piece: LiveSlice, decision: Advance | Start | None
) -> placing.Placement:
    executor = context.executor
    worker = executor.choose(placing.describe(session, study, piece), prefetch=not study.deterministic)
    if worker is None:
        raise RuntimeError(f"{executor.name} had a free slot and then none for slice {piece.id}")
    worker_id = context.fleet.worker_ids[worker]
    return placing.begin(session, study, piece, worker=worker, worker_id=worker_id, decision=decision)


def _submit(context: Context, placement: placing.Placement) -> None:
    context.fleet.assign(placement.work.token, placement.worker)
    context.executor.submit(placement.work, placement.worker)
    reach(Failpoint.SUBMIT_AFTER)


def _is_placed(study: LiveStudy) -> bool:
    """Whether the study may get slots."""
    ready = study.optuna_study_id is not None and not study.awaits_check
    return study.state in _ACTIVE and study.searching and ready


def _works(study: LiveStudy) -> bool:
    """Whether the study has slices on workers, or may have some next."""
    wants = study.state in _ACTIVE and study.searching and not study.idle and not study.awaits_check
    return bool(study.running()) or wants
