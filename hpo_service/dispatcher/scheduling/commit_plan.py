"""What was planned for a turn, written in one transaction and then given to the workers."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from hpo_service.core.study_rules import Need, StudyState
from hpo_service.dispatcher.jobs import deliveries, jobs
from hpo_service.dispatcher.jobs.jobs import LiveJob
from hpo_service.dispatcher.lifecycle import study_state
from hpo_service.dispatcher.scheduling import budget_reservations, study_dtype
from hpo_service.dispatcher.scheduling import placement as placing
from hpo_service.dispatcher.scheduling.budget_reservations import Verdict
from hpo_service.dispatcher.scheduling.placement import Placement, Row
from hpo_service.dispatcher.scheduling.propose import Proposal
from hpo_service.dispatcher.scheduling.quotas import Room
from hpo_service.dispatcher.state.live_studies import LiveSlice, LiveStudy
from hpo_service.dispatcher.state.transaction import Context
from hpo_service.executors.base import Work
from hpo_service.search.strategies.base import Advance
from hpo_service.search.strategies.ranking import FINISH
from hpo_service.storage.queries import placements
from trainer.common.failpoints import Commit, Failpoint, reach
from trainer.spec import Outcome, TrainFinal


@dataclass(kw_only=True)
class Plan:
    """Jobs with their workers, jobs that nobody can do, with the reason, and checks that nobody wants any more; studies
    that fail, end or wait, with the reason; slices to try again; proposals in order. `left` is what there is of quotas
    beside what runs and the jobs.
    """

    left: Room = field(default_factory=Room)
    jobs: list[tuple[LiveJob, str]] = field(default_factory=list)
    given_up: list[tuple[LiveJob, str]] = field(default_factory=list)
    unwanted: list[LiveJob] = field(default_factory=list)
    failures: list[tuple[LiveStudy, str]] = field(default_factory=list)
    ends: list[tuple[LiveStudy, str]] = field(default_factory=list)
    waits: list[tuple[LiveStudy, str]] = field(default_factory=list)
    due: list[tuple[LiveStudy, LiveSlice]] = field(default_factory=list)
    proposals: list[tuple[LiveStudy, Proposal]] = field(default_factory=list)

    @property
    def commit(self) -> Commit | None:
        """What the transaction is called, after the first of these that is in it; None if there is nothing to write."""
        for planned, commit in (
            (self.proposals, Commit.ACCEPT),
            (self.due, Commit.RETRY),
            (self.jobs or self.given_up or self.unwanted, Commit.JOB),
            (self.failures or self.ends or self.waits, Commit.CONCLUDE),
        ):
            if planned:
                return commit
        return None


@dataclass(kw_only=True)
class _Transaction:
    """One that is open: what is known of the trials concerned, and what was placed so far."""

    context: Context
    session: Session
    slice_ids: list[int]
    snapshots: dict[tuple[int, int], list[dict[str, Any]]]
    left: Room
    reserved: dict[int, Need] = field(default_factory=dict)
    planned: Counter[str] = field(default_factory=Counter)
    placed: list[Placement] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)  #: of the new slices


def hand_out(context: Context, plan: Plan) -> None:
    """Write it, commit, and submit what was written."""
    commit = plan.commit
    if commit is None:
        return
    work: list[tuple[Work, str]] = []
    with context.writing(commit) as session:
        for job, worker in plan.jobs:
            work.append((job.next_attempt(), worker))
            jobs.begin(session, job, context.fleet.worker_ids[worker])
        for job, reason in plan.given_up:
            deliveries.follow(session, context.jobs, jobs.give_up(session, context.jobs, job, Outcome.LOST, reason))
        for job in plan.unwanted:
            jobs.end_unwanted(session, context.jobs, job)
        for study, reason in plan.failures:
            study_state.fail_study(session, study, reason)
        for study, reason in plan.ends:
            study_state.complete(session, study, reason)
        for study, message in plan.waits:
            study_state.say(session, study, message)
        current = _Transaction(
            context=context,
            session=session,
            slice_ids=placements.slice_ids(session, len(plan.proposals))[::-1],
            snapshots=_snapshots(session, plan),
            left=plan.left,
            planned=Counter(worker for job, worker in plan.jobs if isinstance(job.task, TrainFinal)),
        )
        for study, piece in plan.due:
            _retry(current, study, piece)
        _accept_all(current, plan.proposals)
        placements.add(session, current.rows, [placement.attempt for placement in current.placed])
    work += [(placement.work, placement.worker) for placement in current.placed]
    for each, worker in work:
        context.fleet.assign(each.token, worker)
        context.executor.submit(each, worker)
        reach(Failpoint.SUBMIT_AFTER)


def _snapshots(session: Session, plan: Plan) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """Those of the trials that go on, newest first, by study and trial number."""
    numbers: dict[int, set[int]] = {}
    for study, piece in plan.due:
        numbers.setdefault(study.id, set()).add(piece.trial_number)
    for study, proposal in plan.proposals:
        if isinstance(proposal.step, Advance):
            numbers.setdefault(study.id, set()).add(proposal.step.trial_number)
    return {
        (study_id, number): known
        for study_id, wanted in numbers.items()
        for number, known in placements.snapshots_by_trial(session, study_id, wanted).items()
    }


def _accept_all(current: _Transaction, proposals: list[tuple[LiveStudy, Proposal]]) -> None:
    """In order; those that are outdated or do not fit the budget are left out, with all that follow from them."""
    decided: dict[int, LiveStudy] = {}
    for study, proposal in proposals:
        if not placing.still_valid(study, proposal) or (study.closing and not _finishes(proposal)):
            continue
        number, until = placing.target(study, proposal)
        searching = not study.closing and study.resolved.confirmation is None
        if (verdict := _weigh(current, study, number, until, searching=searching)) is None:
            continue
        piece, row = placing.accept(current.session, study, proposal, current.slice_ids.pop())
        current.rows.append(row)
        piece.predicted_seconds = verdict.predicted_seconds
        decided[study.id] = study
        _begin(current, study, piece, row)
    for study in decided.values():
        placing.note_decision_number(current.session, study)


def _finishes(proposal: Proposal) -> bool:
    """Whether it trains a trial on that leads; what was proposed before the search was over does not."""
    step = proposal.step
    return isinstance(step, Advance) and step.numbers.get("rule") == FINISH


def _retry(current: _Transaction, study: LiveStudy, piece: LiveSlice) -> None:
    if piece.id not in study.slices:
        return
    verdict = _weigh(current, study, piece.trial_number, piece.until_examples, searching=False)
    if verdict is not None:
        piece.predicted_seconds = verdict.predicted_seconds
        _begin(current, study, piece)


def _weigh(
    current: _Transaction, study: LiveStudy, trial_number: int | None, until: int, *, searching: bool
) -> Verdict | None:
    """What the slice is expected to take, which is reserved now; None if the budget or the project's quota refuses."""
    context = current.context
    if study.id not in current.reserved:
        current.reserved[study.id] = (
            budget_reservations.reserved(context, study) if budget_reservations.is_capped(study) else Need()
        )
    held = current.reserved[study.id]
    verdict = budget_reservations.weigh(context, study, held, trial_number, until, searching=searching)
    if verdict.refusal is not None:
        if searching:
            # What is left may still do for a trial that leads: the next proposals are about nothing else.
            study.closing, study.idle = verdict.refusal, False
        else:
            _refuse(current.session, study, verdict.refusal)
        return None
    if not _take_quota(current, study, verdict.need.seconds):
        return None
    current.reserved[study.id] = budget_reservations.plus(held, verdict.need)
    return verdict


def _take_quota(current: _Transaction, study: LiveStudy, seconds: float) -> bool:
    """Take the room of a slice out of what is left of the project's quota. If there is none, the study waits."""
    ranks, needed = study.resolved.training.ranks, current.context.quotas.needed_seconds
    if not current.left.fits(study.project_id, ranks, seconds):
        needed[study.id] = seconds
        return False
    needed.pop(study.id, None)
    current.left.take(study.project_id, ranks, seconds)
    return True


def _refuse(session: Session, study: LiveStudy, reason: str) -> None:
    """Wait for what runs, it may turn out to take less; if nothing runs, the study is at its end."""
    if study.running():
        study.idle = True
    elif study.state is StudyState.QUEUED:
        study_state.complete(session, study, reason)
    else:
        study_state.enter(session, study, StudyState.STOPPING, reason)
        study_state.conclude(session, study)


def _begin(current: _Transaction, study: LiveStudy, piece: LiveSlice, row: Row | None = None) -> None:
    """The slice stays waiting if no worker takes it after all, or one that is not registered yet."""
    context = current.context
    snapshots = current.snapshots.get((study.id, piece.trial_number), [])
    work = placing.describe(study, piece, snapshots)
    unfit = study_dtype.unfit(context.fleet, study)
    worker = context.executor.choose(work, not study.deterministic, current.planned, unfit)
    if worker is None or worker not in context.fleet.worker_ids:
        return
    if study_dtype.is_open(study):
        if worker not in context.fleet.ready:
            return
        study_dtype.pin(current.session, study, context.fleet.ready[worker])
        work = placing.describe(study, piece, snapshots)
    current.planned[worker] += placing.FULL if work.alone else 1
    worker_id = context.fleet.worker_ids[worker]
    current.placed.append(
        placing.begin(current.session, study, piece, work, worker=worker, worker_id=worker_id, row=row)
    )
