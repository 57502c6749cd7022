"""What was computed, what it cost, what was saved, and what went wrong."""

from hpo_service.formatting.values import Cell, duration, energy, gpu_hours, plural, share
from hpo_service.reports.blocks import Block, Paragraph, Section, Table
from hpo_service.reports.plots.timeline import timeline
from hpo_service.services.reports.facts import StudyReport
from hpo_service.services.studies.schemas import UsageDocument

_PHASES = ("train", "evaluate", "data", "load", "snapshot", "lost")
_MOST_FAILURES = 30


def course(report: StudyReport) -> Section:
    """The timeline, the bill, the savings, the failures."""
    plot = timeline(report.timeline)
    nothing = Paragraph("No worker has had a slice of this study.", "soft")
    return Section(
        title="Course and cost",
        blocks=[
            nothing if plot is None else plot,
            Table(rows=_bill(report)),
            Paragraph(savings(report)),
            *_failures(report),
        ],
    )


def savings(report: StudyReport) -> str:
    """Measured, and against the same trials only."""
    saved, planned = report.saved, report.study.savings
    if not any(point.examples for point in report.points):
        return "Nothing was saved by pausing or pruning: no trial has reached a rung."
    if not saved.trials:
        return "Nothing was saved by pausing or pruning: every trial that started was trained to its end."
    words = (
        f"Pausing and pruning saved {gpu_hours(saved.seconds)}: {plural(saved.trials, 'trial')} did not train "
        f"{saved.examples:,} examples, {planned.share:.0%} of what training the same trials to their end would have "
        "taken, each at its own measured training speed, evaluations not counted."
    )
    if saved.unmeasured:
        words += f" {plural(saved.unmeasured, 'trial')} without a measured speed count as nothing."
    return words


def _bill(report: StudyReport) -> list[tuple[str, Cell]]:
    spent, usage = report.study.spent, report.study.usage
    lost = f", about {duration(spent.lost_seconds)} of it by lost attempts" if spent.lost_seconds else ""
    facts: list[tuple[str, Cell]] = [
        ("compute", f"{gpu_hours(spent.seconds)}{lost}"),
        ("cost", f"{spent.usd:.2f} USD" if spent.usd else "no price is set"),
        ("energy", energy(usage.energy_joules) or "not known: a device has no counter"),
        ("trained on", f"{spent.examples:,} examples, {usage.tokens:,} tokens in {usage.steps:,} steps"),
        ("speed", None if usage.tokens_per_second is None else f"{usage.tokens_per_second:,.0f} tokens a second"),
        ("FLOPs", f"{spent.flops:.3g}" if spent.flops else None),
        ("MFU, HFU", None if usage.mfu is None else f"{share(usage.mfu)}, {share(usage.hfu) or '–'}"),
        ("busy with the model", share(usage.busy)),
        ("time went to", _phases(usage)),
        ("peak memory", f"{usage.peak_memory_bytes / 2**30:.2f} GiB" if usage.peak_memory_bytes else None),
    ]
    confirmation = report.study.confirmation
    if confirmation is not None:
        again = confirmation.spent
        money = f", {again.usd:.2f} USD" if again.usd else ""
        facts.append(("confirmation, on top", f"{gpu_hours(again.seconds)}{money}, {again.examples:,} examples"))
    return [fact for fact in facts if fact[1] is not None]


def _phases(usage: UsageDocument) -> str | None:
    seconds = {phase: float(getattr(usage, f"{phase}_seconds")) for phase in _PHASES}
    total = sum(seconds.values())
    return ", ".join(f"{part / total:.0%} {phase}" for phase, part in seconds.items() if part) if total else None


def _failures(report: StudyReport) -> list[Block]:
    blocks: list[Block] = []
    if report.failed:
        rows = [(one.outcome, one.trials, str(one.first), one.message) for one in report.failed[:_MOST_FAILURES]]
        blocks += [
            Paragraph("Trials that failed, by outcome:"),
            Table(columns=("outcome", "trials", "first", "its message"), rows=rows),
        ]
    if report.bad_attempts:
        attempts = [
            (
                one.outcome,
                one.cause or None,
                one.attempts,
                duration(one.seconds),
                f"{one.usd:.2f} USD" if one.usd else None,
            )
            for one in report.bad_attempts[:_MOST_FAILURES]
        ]
        blocks += [
            Paragraph("Attempts that ended otherwise than done, by cause; the service repeats those with a cause:"),
            Table(columns=("outcome", "cause", "attempts", "device time", "cost"), rows=attempts),
        ]
    return blocks or [Paragraph("Nothing failed: no trial, and no attempt at a slice.")]
