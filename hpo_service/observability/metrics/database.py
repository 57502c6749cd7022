"""What is read off the database at each look: gauges, and totals over everything that ever ran.

No label is a trial; a study is one of gauges only, while it lives, and at most `MOST_STUDIES` are.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy import Row

from hpo_service.core.study_rules import StudyState
from hpo_service.storage.queries.metrics import MOST_STUDIES, Figures

TRIAL_STATES = ("waiting", "running", "paused", "complete", "pruned", "fail")
OPEN_STATES = ("waiting", "running")
_MODEL = "gpu_model"
_READY = "ready"
_NOTIFIED = frozenset({"webhook", "slack"})
_RESULTS = ("delivered", "refused", "away")


def read_database(figures: Figures) -> list[Metric]:
    """All of it, a fixed number of statements."""
    return [
        *_of_studies(figures),
        *_of_live_studies(figures.live_studies()),
        *_of_open_work(figures.open_work()),
        *_of_workers(figures.workers()),
        *_of_leader(figures.leader()),
        *_of_attempts(figures.attempts()),
        *_of_quotas(figures.standings()),
        *_of_outbox(figures.outbox()),
    ]


def _of_studies(figures: Figures) -> Iterable[Metric]:
    studies = GaugeMetricFamily("hpo_studies", "Studies that are not deleted, without confirmations.", labels=["state"])
    _fill(studies, [str(state) for state in StudyState], figures.studies())
    trials = GaugeMetricFamily("hpo_trials", "Trials of studies that are not deleted.", labels=["state"])
    _fill(trials, TRIAL_STATES, figures.trials())
    return studies, trials


def _of_live_studies(rows: Sequence[Row[Any]]) -> Iterable[Metric]:
    which = f"of the {MOST_STUDIES} newest studies that have not ended"
    labels = ["project", "study"]
    best = GaugeMetricFamily("hpo_best_value", f"Lowest final loss {which}.", labels=labels)
    used = GaugeMetricFamily(
        "hpo_study_budget_used_ratio", f"Spent share of each cap {which}.", labels=[*labels, "cap"]
    )
    for row in rows:
        if row.best is not None:
            best.add_metric([row.project, row.study], row.best)
        for cap, share in _shares(row).items():
            used.add_metric([row.project, row.study, cap], share)
    return best, used


def _shares(row: Row[Any]) -> Mapping[str, float]:
    spent = {
        "max_trials": row.trials,
        "max_examples": row.examples,
        "max_gpu_hours": row.seconds / 3600,
        "max_cost_usd": row.usd,
    }
    return {cap: amount / row.budget[cap] for cap, amount in spent.items() if row.budget.get(cap)}


def _of_open_work(rows: Sequence[Row[Any]]) -> Iterable[Metric]:
    slices = GaugeMetricFamily("hpo_slices", "Slices that wait for an attempt or run.", labels=["state"])
    jobs = GaugeMetricFamily("hpo_jobs", "Jobs that wait for an attempt or run.", labels=["state"])
    for family in (slices, jobs):
        what = family.name.removeprefix("hpo_")
        _fill(family, OPEN_STATES, {row.state: row.number for row in rows if row.what == what})
    open_intents = next(row for row in rows if row.what == "intents")
    asked = GaugeMetricFamily(
        "hpo_intents", "What was asked of the dispatcher and is not done.", value=open_intents.number
    )
    age = GaugeMetricFamily(
        "hpo_oldest_intent_age_seconds", "How long the oldest of them waits.", value=open_intents.age_seconds
    )
    return slices, jobs, asked, age


def _of_workers(rows: Sequence[Row[Any]]) -> Iterable[Metric]:
    workers = GaugeMetricFamily("hpo_workers", "Workers that are not gone.", labels=["executor", "state"])
    for executor, state, alike in sorted({(row.executor, row.state, row.alike) for row in rows}):
        workers.add_metric([executor, state], alike)
    up = GaugeMetricFamily(
        "hpo_worker_up", "1: takes work; 0: is draining or quarantined. Gone: not told.", labels=["worker", "executor"]
    )
    heard = GaugeMetricFamily(
        "hpo_worker_last_heartbeat_timestamp_seconds",
        "When a worker was last heard that runs a slice.",
        labels=["worker", "executor"],
    )
    told: set[tuple[str, str]] = set()
    for row in rows:  # the newest first: names come again
        if (row.name, row.executor) not in told:
            told.add((row.name, row.executor))
            up.add_metric([row.name, row.executor], float(row.state == _READY))
            if row.heard_at is not None:
                heard.add_metric([row.name, row.executor], row.heard_at)
    return workers, up, heard


def _of_leader(lease: Row[Any] | None) -> Iterable[Metric]:
    leads = lease is not None and lease.leads
    yield GaugeMetricFamily("hpo_dispatcher_up", "1: a dispatcher holds a valid lease.", value=float(leads))
    yield CounterMetricFamily(
        "hpo_dispatcher_epochs", "Grows whenever another dispatcher leads.", value=lease.epoch if lease else 0
    )


def _of_attempts(rows: Sequence[Row[Any]]) -> Iterable[Metric]:
    attempts = CounterMetricFamily("hpo_attempts", "Attempts that ended, of slices.", labels=["outcome", "cause"])
    by_end: dict[tuple[str, str], int] = {}
    for row in rows:
        by_end[row.outcome, row.cause] = by_end.get((row.outcome, row.cause), 0) + row.attempts
    for (outcome, cause), number in sorted(by_end.items()):
        attempts.add_metric([outcome, cause], number)
    totals = (
        ("hpo_trial_gpu_seconds", "Worker seconds times devices, of all attempts.", "seconds"),
        ("hpo_trial_energy_joules", "Energy of all attempts, as far as devices tell it.", "joules"),
        ("hpo_training_tokens", "Tokens that were trained on.", "tokens"),
    )
    models = sorted({row.gpu_model for row in rows})
    for name, help_text, column in totals:
        family = CounterMetricFamily(name, help_text, labels=[_MODEL])
        for model in models:
            family.add_metric([model], _sum(rows, model, column))
        yield family
    cost = CounterMetricFamily("hpo_cost", "What all attempts cost.", labels=["currency", _MODEL])
    mfu = GaugeMetricFamily(
        "hpo_training_mfu_ratio", "Model FLOPs over the device's peak, of attempts of the last hour.", labels=[_MODEL]
    )
    for model in models:
        cost.add_metric(["USD", model], _sum(rows, model, "usd"))
        available = _sum(rows, model, "available_flops")
        if available:
            mfu.add_metric([model], _sum(rows, model, "flops") / available)
    yield from (attempts, cost, mfu)


def _of_quotas(rows: Sequence[Row[Any]]) -> Iterable[Metric]:
    used = GaugeMetricFamily(
        "hpo_quota_used_ratio", "Used share of each quota of a project.", labels=["project", "quota"]
    )
    for row in rows:
        limits = {
            "parallel_gpus": (row.used_devices, row.parallel_gpus),
            "gpu_hours_month": (row.used_seconds / 3600, row.gpu_hours_month),
            "studies": (row.used_studies, row.studies),
            "stored_bytes": (row.used_bytes, row.stored_bytes),
        }
        for quota, (amount, limit) in limits.items():
            if limit and amount is not None:
                used.add_metric([row.project, quota], float(amount) / limit)
    yield used


def _of_outbox(rows: Sequence[Row[Any]]) -> Iterable[Metric]:
    waiting = GaugeMetricFamily("hpo_outbox_waiting_events", "Events that a sink has yet to be told.", labels=["sink"])
    deliveries = CounterMetricFamily(
        "hpo_webhook_deliveries",
        "Tries to hand a notice over, to webhooks and Slack; `away` are tried again.",
        labels=["sink", "result"],
    )
    for row in rows:
        waiting.add_metric([row.sink], row.waiting)
        if row.sink in _NOTIFIED:
            for result in _RESULTS:
                deliveries.add_metric([row.sink, result], row.results.get(result, 0))
    yield from (waiting, deliveries)


def _sum(rows: Sequence[Row[Any]], model: str, column: str) -> float:
    return float(sum(getattr(row, column) or 0.0 for row in rows if row.gpu_model == model))


def _fill(family: GaugeMetricFamily, states: Iterable[str], counts: Mapping[str, int]) -> None:
    """Every state, those that nothing is in as well."""
    for state in states:
        family.add_metric([state], counts.get(state, 0))
