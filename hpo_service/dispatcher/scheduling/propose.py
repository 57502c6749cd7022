"""What a study does next: computed off the loop, from a view that does not change."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hpo_service.search.samplers import propose_assignment
from hpo_service.search.strategies import ranking
from hpo_service.search.strategies.base import Advance, Start, Step, Strategy, StudyView, TrialView
from hpo_service.search.strategies.nearness import Exhausted
from hpo_service.search.strategies.scalarization import Scalarization
from hpo_service.spec import ResolvedStudy
from hpo_service.spec.sampler_support import TPE_TRIALS, used_sampler
from hpo_service.spec.space import Assignment, SearchSpace

#: of this thread's own time: no further step is begun after it, because the first one waits for the last
_PATIENCE_SECONDS = 0.03


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A strategy's step for one state of a study, with the assignment if it starts a trial.

    `seconds` is how long it took to find.
    """

    decision_number: int
    step: Step
    assignment: Assignment | None = None
    resampled: int = 0
    seconds: float = field(default=0.0, compare=False)


def propose_some(
    strategy: Strategy, space: SearchSpace, resolved: ResolvedStudy, view: StudyView, most: int
) -> list[Proposal]:
    """One to `most` steps, each from the view in which those before it are accepted. Pure but for number and times."""
    begun = time.thread_time()
    found = [_timed(strategy, space, resolved, view)]
    while len(found) < most and time.thread_time() < begun + _PATIENCE_SECONDS:
        if not isinstance(found[-1].step, Advance | Start):
            break
        view = accepted(resolved, view, found[-1])
        found.append(_timed(strategy, space, resolved, view))
    return found


def _timed(strategy: Strategy, space: SearchSpace, resolved: ResolvedStudy, view: StudyView) -> Proposal:
    begun = time.perf_counter()
    found = propose(strategy, space, resolved, view)
    return replace(found, seconds=time.perf_counter() - begun)


def propose(strategy: Strategy, space: SearchSpace, resolved: ResolvedStudy, view: StudyView) -> Proposal:
    """The next step. Pure and possibly slow. Where the space has no point for a new trial, what there is beside it."""
    try:
        return _proposed(strategy, space, resolved, view)
    except Exhausted as exhausted:
        return _proposed(strategy, space, resolved, view.when_exhausted(str(exhausted)))


def _proposed(strategy: Strategy, space: SearchSpace, resolved: ResolvedStudy, view: StudyView) -> Proposal:
    together = Scalarization(view) if len(view.objectives) > 1 else None
    if view.closing:
        step = ranking.conclude(view if together is None else together.searched(resolved.search.strategy))
    elif together is None:
        step = strategy.propose(view)
    else:
        step = together.told(strategy.propose(together.searched(resolved.search.strategy)))
    if not isinstance(step, Start):
        return Proposal(decision_number=view.decision_number, step=step)
    if step.assignment is not None:
        return Proposal(decision_number=view.decision_number, step=step, assignment=step.assignment)
    fixed: Mapping[str, Any] | None = None if step.trial_number is None else view.trials[step.trial_number].sampled
    seen = view if together is None else together.curves()
    sampler = resolved.search.sampler
    assignment, resampled = propose_assignment(space, seen, sampler, fixed)
    used = used_sampler(sampler, len(view.trials))
    if used != sampler:
        step = replace(step, reason=f"{step.reason}; from trial {TPE_TRIALS} on it is {used} that proposes")
    return Proposal(decision_number=view.decision_number, step=step, assignment=assignment, resampled=resampled)


def accepted(resolved: ResolvedStudy, view: StudyView, proposal: Proposal) -> StudyView:
    """The view as it will be once the proposal is accepted."""
    step = proposal.step
    assert isinstance(step, Advance | Start)
    if isinstance(step, Advance):
        trial = replace(view.trials[step.trial_number], standing="running", running_to=step.until_examples)
    else:
        trial = _started(resolved, view, step, proposal.assignment)
    return replace(
        view,
        decision_number=view.decision_number + 1,
        trials=view.roster.changed([trial]),
        memory=view.memory if step.memory is None else dict(step.memory),
    )


def _started(resolved: ResolvedStudy, view: StudyView, step: Start, assignment: Assignment | None) -> TrialView:
    assert assignment is not None
    ladder = resolved.trial_rungs(assignment.parameters)
    plan = resolved.confirmation
    baseline = step.trial_number is not None and view.trials[step.trial_number].baseline
    if plan is not None and step.run is not None:
        baseline = plan.candidate(step.run.candidate).baseline
    return TrialView(
        number=len(view.trials) if step.trial_number is None else step.trial_number,
        standing="running",
        sampled=assignment.sampled,
        parameters=assignment.parameters.model_dump(),
        ladder=ladder,
        baseline=baseline,
        running_to=ladder[0],
        run=step.run,
    )
