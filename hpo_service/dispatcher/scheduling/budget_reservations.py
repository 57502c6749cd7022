"""Budgets: what a slice is expected to take is set aside before it is dispatched, and a cap stops what takes longer."""

from dataclasses import dataclass

from hpo_service.core.study_rules import Need, exhausted, unaffordable
from hpo_service.dispatcher.scheduling.expected_usage import elapsed_seconds, reserved_seconds
from hpo_service.dispatcher.state.live_studies import LiveStudy
from hpo_service.dispatcher.state.transaction import Context


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a slice is expected to take (seconds None: nothing is measured yet), and why it is refused, if it is."""

    predicted_seconds: float | None
    need: Need
    refusal: str | None = None


def weigh(context: Context, study: LiveStudy, reserved: Need, trial_number: int | None, until: int) -> Verdict:
    """Whether a slice of this trial (None: a new one) up to `until` fits beside what is reserved for the others."""
    predicted = predicted_seconds(study, trial_number, until)
    seconds = predicted or 0.0
    need = Need(
        examples=until - _rung(study, trial_number), seconds=seconds, usd=seconds * usd_per_second(context, study)
    )
    limits = study.resolved.limits()
    timed = limits.deadline is not None or limits.max_wall_hours is not None
    refusal = unaffordable(
        limits,
        study.spent,
        reserved,
        need,
        wall_seconds=seconds / study.resolved.training.ranks,
        now=context.clock.now() if timed else None,
        started_at=study.started_at,
    )
    return Verdict(predicted_seconds=predicted, need=need, refusal=refusal)


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
