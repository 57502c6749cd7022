"""Filling free slots: jobs, due attempts, then what the strategies propose; all of it in one transaction a turn."""

import logging
import time
from collections import Counter
from dataclasses import dataclass, field

from hpo_service.core.study_rules import TERMINAL, StudyState
from hpo_service.dispatcher.scheduling import (
    fair_share,
    job_placement,
    placement,
    quotas,
    shortage,
    study_dtype,
    worker_demand,
)
from hpo_service.dispatcher.scheduling.commit_plan import Plan, hand_out
from hpo_service.dispatcher.state.live_studies import LiveStudy
from hpo_service.dispatcher.state.transaction import Context
from hpo_service.search.strategies.base import Advance, Finished, Start

log = logging.getLogger(__name__)

#: slices that are begun in one transaction: it must end long before the lease does
_MOST_A_TURN = 64
_ACTIVE = frozenset({StudyState.QUEUED, StudyState.RUNNING})
_WAITS = (shortage.WAITS, quotas.WAITS)


@dataclass(kw_only=True)
class _Round:
    """The studies that may get slots in this turn, how many each may have, and what is to be written."""

    context: Context
    studies: list[LiveStudy]
    slots: dict[int, int] = field(default_factory=dict)
    plan: Plan = field(default_factory=Plan)


def fill(context: Context, studies: dict[int, LiveStudy]) -> None:
    """Hand out what fits now, and let what may come next be proposed."""
    context.quotas.refresh(context.sessions, studies.values())
    left = quotas.room(context.quotas, studies, context.jobs)
    fitting = [study for study in _by_priority(studies) if _fits(context, study)]
    context.executor.demand(worker_demand.wanted(fitting, context.jobs, left))
    placed = [study for study in fitting if _is_placed(study)]
    context.proposals.retain([study.id for study in placed])
    current = _Round(context=context, studies=placed, plan=Plan(left=left))
    _plan_jobs(current, left)
    current.plan.waits = _waits(current, [study for study in studies.values() if _is_placed(study)])
    current.slots = {} if context.faults.resting else _slots(context, current.studies, left.copy())
    for study in current.studies:
        _plan_study(current, study)
    hand_out(context, current.plan)
    for study in current.studies:
        _request(current, study)
    for study_id in [study.id for study in studies.values() if study.state in TERMINAL]:
        del studies[study_id]


def _plan_jobs(current: _Round, left: quotas.Room) -> None:
    """Their places, and checks that make room at once: what is stopped so waits again, or is not wanted."""
    planned = job_placement.planned(current.context, left)
    current.plan.jobs, current.plan.given_up = planned.placed, planned.given_up
    current.plan.unwanted = planned.unwanted
    for job in planned.stopped:
        job.stop_sent = True
        current.context.executor.stop(job.token)


def _by_priority(studies: dict[int, LiveStudy]) -> list[LiveStudy]:
    return sorted(studies.values(), key=lambda study: (-study.resolved.resources.priority, study.id))


def _fits(context: Context, study: LiveStudy) -> bool:
    """Whether a trial of it could ever run here. Else it waits, and says so, for a dispatcher that is given more."""
    return study.resolved.training.ranks <= context.executor.largest_group


def _waits(current: _Round, studies: list[LiveStudy]) -> list[tuple[LiveStudy, str]]:
    """Studies whose message has to change because they wait for devices or for their quota, or do so no more."""
    context, left = current.context, current.plan.left
    wanted = [
        (study, shortage.message(context.executor, context.fleet, study) or quotas.message(context.quotas, left, study))
        for study in studies
    ]
    return [
        (study, message)
        for study, message in wanted
        if message != study.message and (message or study.message.startswith(_WAITS))
    ]


def _slots(context: Context, studies: list[LiveStudy], left: quotas.Room) -> dict[int, int]:
    """How many slices each study may begin now, by its id.

    Studies share what the same workers have. Who may not use all of them comes first, and takes from the others.
    """
    found: dict[int, int] = {}
    now = time.monotonic()

    def take(want: fair_share.Want) -> bool:
        need = (want.project_id, want.ranks, want.slice_seconds)
        fits = left.fits(*need)
        if fits:
            left.take(*need)
        return fits

    context.usages.retain({study.id for study in studies})
    groups: dict[tuple[int, frozenset[str]], list[LiveStudy]] = {}
    for study in studies:
        groups.setdefault((study.resolved.training.ranks, study_dtype.unfit(context.fleet, study)), []).append(study)
    given: Counter[int] = Counter()
    for (ranks, unfit), group in sorted(groups.items(), key=lambda item: -len(item[0][1])):
        free = min(
            context.executor.free_slots(True, ranks, unfit), context.executor.free_slots(True, ranks) - given[ranks]
        )
        if free > 0:
            queued = max(0, free - context.executor.free_slots(False, ranks, unfit))
            wants = [_want(context, study, now) for study in group]
            allotted = fair_share.allot(wants, min(free, _MOST_A_TURN + queued), queued, take)
            given[ranks] += sum(allotted.values())
            found |= allotted
    return found


def _want(context: Context, study: LiveStudy, now: float) -> fair_share.Want:
    running = study.running()
    most = study.resolved.budget.max_parallel - len(running)
    waiting = len(study.slices) - len(running)
    most = min(most, waiting if study.idle else waiting + context.proposals.expected(study.id))
    elapsed = sum(now - piece.begun_at for piece in running) * study.resolved.training.ranks
    return fair_share.Want(
        study_id=study.id,
        project_id=study.project_id,
        ranks=study.resolved.training.ranks,
        priority=study.resolved.resources.priority,
        most=most,
        used_seconds=context.usages.lately(study.id, study.spent.seconds, now) + elapsed,
        running=len(running),
        slice_seconds=quotas.next_seconds(context.quotas, study),
        prefetch=not study.deterministic,
    )


def _plan_study(current: _Round, study: LiveStudy) -> None:
    """Due attempts go before proposals."""
    room = current.slots.get(study.id, 0)
    due = study.waiting()[:room]
    current.plan.due.extend((study, piece) for piece in due)
    room -= len(due)
    try:
        proposals = current.context.proposals.take(study.id)
    except Exception as error:
        log.exception("study %s: no next step could be computed", study.name)
        current.plan.failures.append((study, f"no next step could be computed: {error}"))
        return
    for proposal in proposals:
        if isinstance(proposal.step, Advance | Start):
            if room > 0:
                current.plan.proposals.append((study, proposal))
                room -= 1
        elif placement.still_valid(study, proposal):
            if isinstance(proposal.step, Finished) and not study.slices:
                current.plan.ends.append((study, proposal.step.reason))
            else:
                study.idle = True
    current.slots[study.id] = room


def _request(current: _Round, study: LiveStudy) -> None:
    """Let the next steps be computed, as many as there is room for."""
    room = current.slots.get(study.id, 0)
    if room <= 0 or study.idle or study.state not in _ACTIVE or study.waiting():
        return
    most = 1 if study.deterministic else room
    current.context.proposals.request(study, _view_slots(current.context, study), most)


def _view_slots(context: Context, study: LiveStudy) -> int:
    """How many slices the study may have running; of a deterministic study it depends on the spec alone."""
    most = study.resolved.budget.max_parallel
    if study.deterministic:
        return most
    unfit = study_dtype.unfit(context.fleet, study)
    free = context.executor.free_slots(False, study.resolved.training.ranks, unfit)
    return max(1, min(most, len(study.running()) + free))


def _is_placed(study: LiveStudy) -> bool:
    """Whether the study may get slots."""
    ready = study.optuna_study_id is not None and not study.awaits_check
    return study.state in _ACTIVE and study.searching and ready
