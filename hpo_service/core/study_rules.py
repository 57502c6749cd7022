"""Pure rules: the states of a study, its rungs, its budget, money."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise

from hpo_service.core.errors import Conflict


class StudyState(StrEnum):
    """Where a study stands. *stop* lets running slices finish; *cancel* stops at the next step boundary."""

    QUEUED = "queued"  #: accepted, no trial dispatched yet
    RUNNING = "running"  #: slices are proposed and dispatched
    PAUSING = "pausing"  #: running slices stop at their next step boundary, with a snapshot
    PAUSED = "paused"  #: nothing runs; resume goes on from the snapshots
    STOPPING = "stopping"  #: no new slice; the running ones finish, and then what was found may be confirmed
    COMPLETED = "completed"  #: the budget is spent or the study was stopped; the best is kept
    FAILED = "failed"  #: the study cannot go on (data error, user error, too many failures)
    CANCELLING = "cancelling"  #: running slices stop at their next step boundary
    CANCELLED = "cancelled"  #: ended by the user before its budget was spent


class Cause(StrEnum):
    """Why an attempt was lost or failed through no fault of its trial. Every such attempt has exactly one."""

    WORKER_DIED = "worker_died"  #: its worker's process ended by itself; counts against the slice
    NO_PROGRESS = "no_progress"  #: it stood still for too long and its worker was killed; counts against the slice
    INFRA_ERROR = "infra_error"  #: the worker says that something below the trial failed; counts against the slice
    GPU_FAULT = "gpu_fault"  #: the device failed; the worker is quarantined
    NODE_LOST = "node_lost"  #: the machine went away
    WORKER_ENDED = "worker_ended"  #: its worker was drained, quarantined or replaced
    DISPATCHER_LOST = "dispatcher_lost"  #: a dispatcher ended and its workers with it
    NEVER_SENT = "never_sent"  #: it was written down and never reached a worker


#: Causes that may be the trial's own doing, so that they use up its attempts.
COUNTED_CAUSES = frozenset({Cause.WORKER_DIED, Cause.NO_PROGRESS, Cause.INFRA_ERROR})

#: share of a cap from which on people want to know
NEARLY_SPENT_SHARE = 0.8
TERMINAL = frozenset({StudyState.COMPLETED, StudyState.FAILED, StudyState.CANCELLED})

_TRANSITIONS: dict[StudyState, frozenset[StudyState]] = {
    StudyState.QUEUED: frozenset(
        {StudyState.RUNNING, StudyState.PAUSED, StudyState.COMPLETED, StudyState.FAILED, StudyState.CANCELLED}
    ),
    StudyState.RUNNING: frozenset(
        {StudyState.PAUSING, StudyState.STOPPING, StudyState.CANCELLING, StudyState.COMPLETED, StudyState.FAILED}
    ),
    StudyState.PAUSING: frozenset(
        {StudyState.PAUSED, StudyState.RUNNING, StudyState.STOPPING, StudyState.CANCELLING, StudyState.FAILED}
    ),
    StudyState.PAUSED: frozenset(
        {StudyState.RUNNING, StudyState.STOPPING, StudyState.COMPLETED, StudyState.CANCELLED, StudyState.FAILED}
    ),
    StudyState.STOPPING: frozenset(
        {StudyState.RUNNING, StudyState.COMPLETED, StudyState.CANCELLING, StudyState.FAILED}
    ),
    StudyState.CANCELLING: frozenset({StudyState.CANCELLED, StudyState.FAILED}),
    StudyState.COMPLETED: frozenset(),
    StudyState.FAILED: frozenset(),
    StudyState.CANCELLED: frozenset(),
}


def require_transition(name: str, current: StudyState, wanted: StudyState) -> None:
    """Raise Conflict unless the study may go from `current` to `wanted`."""
    if wanted in _TRANSITIONS[current]:
        return
    reachable = ", ".join(sorted(_TRANSITIONS[current])) or "nothing, it has ended"
    raise Conflict(f"study {name!r} is {current} and cannot become {wanted}; from here it can become {reachable}.")


def ladder(max_examples: int, first_fraction: float, factor: float) -> tuple[int, ...]:
    """Rungs in examples seen: the first at `first_fraction` of `max_examples`, each `factor` times further.

    The last rung is `max_examples`; a rung that would lie within 20 % of it is left out.
    """
    rungs: list[int] = []
    position = max(1.0, max_examples * first_fraction)
    while position < max_examples / 1.2:
        rungs.append(round(position))
        position *= factor
    return (*dict.fromkeys(rungs), max_examples)


def trial_ladder(study_ladder: tuple[int, ...], total_examples: int) -> tuple[int, ...]:
    """The rungs of one trial: the study's rungs below its own end, then its end."""
    return (*(rung for rung in study_ladder if rung < total_examples), total_examples)


def bracket_shares(ladder: tuple[int, ...], reduction_factor: int) -> tuple[float, ...]:
    """The share of all trials that begins at each rung if trials of every rung are to see as many examples in total.

    One in `reduction_factor` trials goes on from the rung where it began, and from every later one.
    """
    trials = [1 / _examples_per_trial(ladder[first:], reduction_factor) for first in range(len(ladder))]
    return tuple(count / sum(trials) for count in trials)


def _examples_per_trial(rungs: tuple[int, ...], reduction_factor: int) -> float:
    parts = (end - start for start, end in pairwise((0, *rungs)))
    return sum(examples / float(reduction_factor) ** index for index, examples in enumerate(parts))


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a study has consumed so far, running slices not counted. Seconds are worker seconds times GPUs."""

    trials: int = 0
    examples: int = 0
    seconds: float = 0.0
    usd: float = 0.0
    flops: float = 0.0

    def with_more(self, seconds: float, usd: float) -> "Spent":
        """As if so much more were spent."""
        return replace(self, seconds=self.seconds + seconds, usd=self.usd + usd)


@dataclass(frozen=True, kw_only=True)
class Need:
    """What slices are expected to take; 0 of what cannot be told. Seconds are worker seconds times GPUs."""

    examples: int = 0
    seconds: float = 0.0
    usd: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Hard caps; `None` means no cap. `started_at` is when the wall clock began to run, None: it did not."""

    max_trials: int
    max_examples: int | None = None
    max_gpu_hours: float | None = None
    max_cost_usd: float | None = None
    max_wall_hours: float | None = None
    deadline: datetime | None = None

    def without_examples(self) -> "Limits":
        """Without the cap that no clock can reach."""
        return replace(self, max_examples=None)

    def end(self, started_at: datetime | None) -> datetime | None:
        """When the study must be over; None: no cap on time."""
        walls = [] if self.deadline is None else [self.deadline]
        if self.max_wall_hours is not None and started_at is not None:
            walls.append(started_at + timedelta(hours=self.max_wall_hours))
        return min(walls, default=None)


def exhausted(limits: Limits, spent: Spent, now: datetime | None, started_at: datetime | None = None) -> str | None:
    """Why nothing more may be dispatched; None while something may. Trials are counted elsewhere.

    `now` is the database's clock; it is needed only if there is a cap on time.
    """
    if limits.max_examples is not None and spent.examples >= limits.max_examples:
        return f"{spent.examples} of {limits.max_examples} examples are spent"
    if limits.max_gpu_hours is not None and spent.seconds >= limits.max_gpu_hours * 3600:
        return f"{spent.seconds / 3600:.2f} of {limits.max_gpu_hours:g} GPU-hours are spent"
    if limits.max_cost_usd is not None and spent.usd >= limits.max_cost_usd:
        return f"{spent.usd:.2f} of {limits.max_cost_usd:g} USD are spent"
    end = limits.end(started_at)
    if end is None or now is None or now < end:
        return None
    if end == limits.deadline:
        return f"the deadline {end.isoformat()} has passed"
    return f"budget.max_wall_hours ({limits.max_wall_hours:g}) are over"


def nearly_spent(limits: Limits, before: Spent, after: Spent) -> str | None:
    """Which cap has come near its end between the two; None: none did. Trials and time are not looked at."""
    spent = (
        ("examples", limits.max_examples, before.examples, after.examples, 1.0),
        ("GPU-hours", limits.max_gpu_hours, before.seconds, after.seconds, 3600.0),
        ("USD", limits.max_cost_usd, before.usd, after.usd, 1.0),
    )
    for unit, cap, old, new, scale in spent:
        if cap is not None and old / scale < NEARLY_SPENT_SHARE * cap <= new / scale:
            return f"{new / scale:.4g} of {cap:g} {unit} are spent"
    return None


def unaffordable(
    limits: Limits,
    spent: Spent,
    reserved: Need,
    need: Need,
    *,
    wall_seconds: float = 0.0,
    now: datetime | None = None,
    started_at: datetime | None = None,
) -> str | None:
    """Why a slice with this need may not be dispatched beside those that hold `reserved`; None if it fits every cap.

    `wall_seconds` is how long it is expected to run; `now` as in `exhausted`.
    """
    over = exhausted(limits, spent, now, started_at)
    if over is not None:
        return over
    left = (
        ("examples", limits.max_examples, spent.examples + reserved.examples, need.examples, 1.0),
        ("GPU-hours", limits.max_gpu_hours, spent.seconds + reserved.seconds, need.seconds, 3600.0),
        ("USD", limits.max_cost_usd, spent.usd + reserved.usd, need.usd, 1.0),
    )
    for unit, cap, taken, wanted, scale in left:
        if cap is not None and taken / scale + wanted / scale > cap:
            remaining = max(0.0, cap - taken / scale)
            return f"the next slice takes {wanted / scale:.4g} {unit}, and {remaining:.4g} of {cap:g} are left"
    end = limits.end(started_at)
    if end is not None and now is not None and now + timedelta(seconds=wall_seconds) > end:
        return f"the next slice takes {wall_seconds / 60:.4g} minutes, and the study ends at {end.isoformat()}"
    return None


def cost_usd(seconds: float, gpus: int, usd_per_gpu_hour: float) -> float:
    """Price of `seconds` of wall clock on `gpus` accelerators."""
    return seconds * gpus * usd_per_gpu_hour / 3600
