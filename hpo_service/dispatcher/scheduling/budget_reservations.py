"""Budgets: what a slice is expected to take is set aside before it is dispatched, and a cap stops what takes longer."""

from dataclasses import dataclass, replace

from hpo_service.core.study_rules import Need, exhausted, unaffordable
from hpo_service.dispatcher.scheduling.expected_usage import elapsed_seconds, reserved_seconds
from hpo_service.dispatcher.state.live_studies import LiveStudy
from hpo_service.dispatcher.state.transaction import Context
from hpo_service.search.leader import ahead_of, leader
from hpo_service.search.strategies.ranking import best_complete


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a slice is expected to take (seconds None: nothing is measured yet), and why it is refused, if it is."""

    predicted_seconds: float | None
    need: Need
    refusal: str | None = None


def weigh(
    context: Context, study: LiveStudy, reserved: Need, trial_number: int | None, until: int, *, searching: bool
) -> Verdict:
    """Whether a slice of this trial (None: a new one) up to `until` fits beside what is reserved for the others.

    A `searching` slice must leave enough for training the trial to its end that leads, except within a deadline, which
    ends a study at once.
    """
    predicted = predicted_seconds(study, trial_number, until)
    seconds = predicted or 0.0
    need = Need(
        examples=until - _rung(study, trial_number), seconds=seconds, usd=seconds * usd_per_second(context, study)
    )
    limits = study.resolved.limits()
    timed = limits.deadline is not None or limits.max_wall_hours is not None
    ranks, now = study.resolved.training.ranks, context.clock.now() if timed else None
    refusal = unaffordable(
        limits, study.spent, reserved, need, wall_seconds=seconds / ranks, now=now, started_at=study.started_at
    )
    if refusal is None and searching and is_capped(study):
        kept = kept_for_the_leader(study, trial_number, until)
        pace = seconds_per_example(study, kept.trial_number) or 0.0
        later = Need(
            examples=kept.examples,
            seconds=kept.examples * pace,
            usd=kept.examples * pace * usd_per_second(context, study),
        )
        beside = unaffordable(
            replace(limits, deadline=None),
            study.spent,
            reserved,
            plus(need, later),
            wall_seconds=(seconds + later.seconds) / ranks,
            now=now,
            started_at=study.started_at,
        )
        if beside is not None:
            who = "a trial" if kept.trial_number is None else f"trial {kept.trial_number}, which leads,"
            refusal = f"the budget is spent but for {kept.examples} examples that train {who} to its end"
    return Verdict(predicted_seconds=predicted, need=need, refusal=refusal)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Examples that training the leader to its end takes once a slice has ended; None: no trial leads yet."""

    trial_number: int | None
    examples: int


def kept_for_the_leader(study: LiveStudy, trial_number: int | None, until: int) -> Kept:
    """What must be left once this slice has ended, so that a study does not end with its leader unfinished.

    Before a searched trial has a loss it is a whole trial. It is nothing once a searched trial is complete that no
    other one is ahead of.
    """
    roster = study.roster()
    # Of those that are paused at a rung only the best can lead; to look at each would take long in a large study.
    paused = [roster[roster.paused_at(rung)[0]] for rung in roster.paused_rungs() if rung]
    alive = {trial.number: trial for trial in (*paused, *roster.standing("running")) if not trial.baseline}
    best = best_complete(roster.standing("complete"))
    number: int | None
    if best is not None:
        number = next(iter(ahead_of(best.losses, [(one.number, one.losses) for one in alive.values()])), None)
        if number is None:
            return Kept(trial_number=None, examples=0)
    else:
        number = leader({one.number: one.losses for one in alive.values()})
    if number is None:
        is_baseline = trial_number is not None and roster[trial_number].baseline
        return Kept(trial_number=None, examples=study.resolved.ladder[-1] - (0 if is_baseline else until))
    first = alive[number]
    reached = max(first.rung, first.running_to or 0, until if number == trial_number else 0)
    return Kept(trial_number=number, examples=first.ladder[-1] - reached)


def reserved(context: Context, study: LiveStudy) -> Need:
    """What the running slices are still expected to take in all: what they took already counts when they end."""
    seconds = reserved_seconds(study)
    return Need(
        examples=sum(piece.until_examples - _rung(study, piece.trial_number) for piece in study.running()),
        seconds=seconds,
        usd=seconds * usd_per_second(context, study),
    )


def plus(one: Need, other: Need) -> Need:
    """Both together."""
    return Need(examples=one.examples + other.examples, seconds=one.seconds + other.seconds, usd=one.usd + other.usd)


def is_capped(study: LiveStudy) -> bool:
    """Whether there is any cap beside the number of trials."""
    limits = study.resolved.limits()
    caps = (limits.max_examples, limits.max_gpu_hours, limits.max_cost_usd, limits.max_wall_hours, limits.deadline)
    return any(cap is not None for cap in caps)


def reached_cap(context: Context, study: LiveStudy) -> str | None:
    """The cap that the study's running slices have reached on the clock; None if there is none."""
    running = study.running()
    if not running or not is_capped(study):
        return None
    seconds = sum(elapsed_seconds(study, piece) for piece in running)
    usd = seconds * usd_per_second(context, study)
    so_far = study.spent.with_more(seconds, usd)
    limits = study.resolved.limits().without_examples()
    timed = limits.deadline is not None or limits.max_wall_hours is not None
    return exhausted(limits, so_far, context.clock.now() if timed else None, study.started_at)


def predicted_seconds(study: LiveStudy, trial_number: int | None, until: int) -> float | None:
    """Device seconds of a slice, from the trial's own pace if it has one, else from the study's. None before that."""
    pace = seconds_per_example(study, trial_number)
    return None if pace is None else (until - _rung(study, trial_number)) * pace


def seconds_per_example(study: LiveStudy, trial_number: int | None = None) -> float | None:
    """Device seconds for a training example, with all that goes with it."""
    if trial_number is not None:
        attrs = study.trial(trial_number).user_attrs
        if attrs.get("examples"):
            return float(attrs["seconds"]) * study.resolved.training.ranks / int(attrs["examples"])
    spent = study.spent
    return spent.seconds / spent.examples if spent.examples else None


def usd_per_second(context: Context, study: LiveStudy) -> float:
    """Of a device: what the study has paid so far, before that the flat price."""
    spent = study.spent
    return spent.usd / spent.seconds if spent.seconds else context.prices.usd_per_device_hour("") / 3600


def _rung(study: LiveStudy, trial_number: int | None) -> int:
    if trial_number is None:
        return 0
    return max(study.trial(trial_number).intermediate_values, default=0)
