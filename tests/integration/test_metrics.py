"""`/metrics`: who may read it, what it says after a study has run, and what it costs."""

import time
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, event, text
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.observability.metrics import Metrics
from hpo_service.storage.queries import outbox, tenants
from hpo_service.storage.queries.metrics import MOST_STUDIES
from hpo_service.storage.tables import DEFAULT_PROJECT_ID
from tests import dispatching, serving

Sessions = sessionmaker[Session]
TOKEN = "t" * 32
RESULTS = ("delivered", "refused", "away")
#: nothing else may be a label; `study` is bounded, and `worker` are those that are there
LABELS = {
    *("state", "project", "study", "cap", "worker", "executor", "outcome", "cause", "reason", "gpu_model", "currency"),
    *("quota", "sink", "result", "kind", "method", "route", "status", "version", "git_sha", "le"),
}
TYPES = {
    "hpo_studies": "gauge",
    "hpo_trials": "gauge",
    "hpo_trials_finished": "counter",
    "hpo_trial_duration_seconds": "histogram",
    "hpo_trial_gpu_seconds": "counter",
    "hpo_trial_energy_joules": "counter",
    "hpo_cost": "counter",
    "hpo_training_tokens": "counter",
    "hpo_training_mfu_ratio": "gauge",
    "hpo_worker_up": "gauge",
    "hpo_worker_last_heartbeat_timestamp_seconds": "gauge",
    "hpo_trial_queue_seconds": "histogram",
    "hpo_webhook_deliveries": "counter",
    "hpo_sampler_ask_seconds": "histogram",
    "hpo_best_value": "gauge",
    "hpo_db_pool_in_use": "gauge",
    "hpo_http_request_duration_seconds": "histogram",
    "hpo_build_info": "gauge",
    "hpo_study_budget_used_ratio": "gauge",
    "hpo_slices": "gauge",
    "hpo_quota_used_ratio": "gauge",
    "hpo_dispatcher_up": "gauge",
    "hpo_database_up": "gauge",
    "hpo_events": "counter",
}


class Scrape:
    """What one answer said."""

    def __init__(self, said: bytes) -> None:
        families = list(text_string_to_metric_families(said.decode()))
        self.types = {family.name: family.type for family in families}
        self.samples = [sample for family in families for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float | None:
        found = [s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items()]
        return sum(found) if found else None


@pytest.fixture
def metrics(engine: Engine) -> Metrics:
    """Looks at the database whenever it is asked."""
    return Metrics(engine, revision="abc", fresh_seconds=0.0)


def run_study(sessions: Sessions, dispatcher: Dispatcher, **overrides: Any) -> None:
    study = dispatching.post_study(sessions, **overrides)
    dispatching.turn_until(dispatcher, lambda: dispatching.state_of(sessions, study) == "completed")


def test_names_and_types(metrics: Metrics) -> None:
    scrape = Scrape(metrics.exposition())
    assert {name: scrape.types.get(name) for name in TYPES} == TYPES
    assert scrape("hpo_build_info", git_sha="abc") == 1
    assert scrape("hpo_studies", state="running") == scrape("hpo_trials", state="paused") == 0
    assert scrape("hpo_dispatcher_up") == 0


def test_a_study_is_seen(metrics: Metrics, sessions: Sessions) -> None:
    metrics.exposition()
    run_study(sessions, dispatching.make(sessions)[0])
    scrape = Scrape(metrics.exposition())
    assert scrape("hpo_studies", state="completed") == 1
    assert scrape("hpo_trials") == scrape("hpo_trials_finished_total") == 9
    assert scrape("hpo_trial_duration_seconds_count") == 9
    assert scrape("hpo_trials_finished_total", outcome="complete") == scrape("hpo_trials", state="complete")
    assert scrape("hpo_trials", state="paused") == 0
    assert scrape("hpo_dispatcher_up") == scrape("hpo_database_up") == 1
    assert scrape("hpo_worker_up") == scrape("hpo_workers", state="ready")
    slices = scrape("hpo_attempts_total", outcome="done")
    assert slices is not None
    assert slices >= 9
    assert scrape("hpo_events_total", kind="slice.started") == slices
    assert (scrape("hpo_trial_gpu_seconds_total") or 0) > 0
    assert scrape("hpo_best_value") is None, "only of studies that have not ended"
    assert scrape("hpo_sampler_ask_seconds_count") == slices
    assert (scrape("hpo_sampler_ask_seconds_sum") or 0) > 0
    assert scrape("hpo_trial_queue_seconds_count") == 1, "its first slice waited, the others were begun on free slots"


def test_a_worker_that_runs_something_was_heard_and_one_that_is_lost_makes_slices_wait(
    metrics: Metrics, sessions: Sessions
) -> None:
    metrics.exposition()
    dispatcher, fake = dispatching.make(sessions)
    fake.hold = True
    dispatching.post_study(sessions)
    heartbeat = "hpo_worker_last_heartbeat_timestamp_seconds"
    dispatching.turn_until(dispatcher, lambda: bool(Scrape(metrics.exposition())(heartbeat)))
    (worker,) = {sample.labels["worker"] for sample in Scrape(metrics.exposition()).samples if sample.name == heartbeat}
    assert abs((Scrape(metrics.exposition())(heartbeat) or 0) - time.time()) < 60
    fake.kill(worker)
    fake.hold = False
    dispatching.turn_until(dispatcher, lambda: (Scrape(metrics.exposition())("hpo_trial_queue_seconds_count") or 0) > 1)
    assert (Scrape(metrics.exposition())("hpo_slices_retried_total") or 0) >= 1


def test_a_live_study_tells_its_best_and_its_budget(metrics: Metrics, sessions: Sessions) -> None:
    dispatcher, _ = dispatching.make(sessions)
    dispatching.post_study(sessions, budget__max_trials=50, budget__max_examples=1_000_000)
    dispatching.turn_until(dispatcher, lambda: bool(Scrape(metrics.exposition())("hpo_trials", state="complete")))
    scrape = Scrape(metrics.exposition())
    assert 2.0 < (scrape("hpo_best_value", project="default", study="s") or 0) < 4.0
    assert 0 < (scrape("hpo_study_budget_used_ratio", study="s", cap="max_trials") or 0) < 1
    assert 0 < (scrape("hpo_study_budget_used_ratio", study="s", cap="max_examples") or 0) < 1
    assert scrape("hpo_study_budget_used_ratio", study="s", cap="max_cost_usd") is None


def test_how_much_of_its_quotas_a_project_uses(metrics: Metrics, sessions: Sessions) -> None:
    serving.make_project(sessions, "unlimited")
    with sessions.begin() as session:
        tenants.set_limits(session, DEFAULT_PROJECT_ID, {"studies": 4, "parallel_gpus": 2, "stored_bytes": 100})
    dispatcher, fake = dispatching.make(sessions)
    fake.hold = True
    dispatching.post_study(sessions)
    dispatching.turn_until(dispatcher, lambda: bool(fake.submitted))
    scrape = Scrape(metrics.exposition())
    assert scrape("hpo_quota_used_ratio", project="default", quota="studies") == 0.25
    assert scrape("hpo_quota_used_ratio", project="default", quota="parallel_gpus") == 0.5
    assert scrape("hpo_quota_used_ratio", quota="gpu_hours_month") is None
    assert scrape("hpo_quota_used_ratio", project="unlimited") is None


def test_what_waits_in_the_outbox(metrics: Metrics, sessions: Sessions) -> None:
    with sessions.begin() as session:
        outbox.open_cursor(session, "mlflow", from_now=True)
    assert Scrape(metrics.exposition())("hpo_outbox_waiting_events", sink="mlflow") == 0
    run_study(sessions, dispatching.make(sessions)[0])
    scrape = Scrape(metrics.exposition())
    assert (scrape("hpo_outbox_waiting_events", sink="mlflow") or 0) >= (scrape("hpo_events_total") or 0) > 20


def test_what_became_of_notices(metrics: Metrics, sessions: Sessions) -> None:
    with sessions.begin() as session:
        for sink in ("webhook", "mlflow"):
            outbox.open_cursor(session, sink, from_now=True)
        for result in ("away", "away", "delivered"):
            outbox.count_result(session, "webhook", result)
    scrape = Scrape(metrics.exposition())
    told = {result: scrape("hpo_webhook_deliveries_total", sink="webhook", result=result) for result in RESULTS}
    assert told == {"delivered": 1, "refused": 0, "away": 2}
    assert scrape("hpo_webhook_deliveries_total", sink="mlflow") is None


def test_labels_are_bounded(metrics: Metrics, sessions: Sessions) -> None:
    dispatcher, _ = dispatching.make(sessions)
    run_study(sessions, dispatcher)
    few = Scrape(metrics.exposition())
    run_study(sessions, dispatcher, metadata__name="more", budget__max_trials=25)
    more = Scrape(metrics.exposition())
    assert {label for sample in more.samples for label in sample.labels} <= LABELS
    assert len(more.samples) == len(few.samples), "neither trials nor ended studies add a series"
    for number in range(MOST_STUDIES + 20):
        dispatching.post_study(sessions, metadata__name=f"s{number}")
    many = Scrape(metrics.exposition())
    assert many("hpo_studies", state="queued") == MOST_STUDIES + 20
    assert len({sample.labels["study"] for sample in many.samples if "study" in sample.labels}) == MOST_STUDIES


def test_the_cost_does_not_grow_with_what_is_there(engine: Engine, sessions: Sessions) -> None:
    metrics = Metrics(engine, fresh_seconds=3600.0)
    with statements(engine) as few:
        metrics.exposition()
        metrics.exposition()
    run_study(sessions, dispatching.make(sessions)[0], budget__max_trials=20)
    again = Metrics(engine, fresh_seconds=0.0)
    with statements(engine) as many:
        again.exposition()
    assert len(many) == len(few), "a fixed number of statements, once while they are fresh"
    assert "SET LOCAL statement_timeout = 5000" in few


def test_without_a_database(engine: Engine, metrics: Metrics) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE hpo.leases RENAME TO elsewhere"))
    scrape = Scrape(metrics.exposition())
    assert scrape("hpo_database_up") == 0
    assert scrape("hpo_studies") is None
    assert scrape("hpo_build_info") == 1
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE hpo.elsewhere RENAME TO leases"))
    assert Scrape(metrics.exposition())("hpo_database_up") == 1


def test_who_may_read(engine: Engine, sessions: Sessions, root: Path) -> None:
    client = serving.serve(engine, serving.settings(root, metrics_token=TOKEN))
    bearer = serving.bearer
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers=bearer("x" * 32)).status_code == 401
    answer = client.get("/metrics", headers=bearer(TOKEN))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert client.get("/metrics", headers=bearer(serving.make_key(sessions))).status_code == 200
    foreign = serving.make_key(sessions, serving.make_project(sessions, "other"))
    assert client.get("/metrics", headers=bearer(foreign)).status_code == 404
    for method, path in (("GET", "/v1/studies"), ("POST", "/metrics"), ("GET", "/metrics/"), ("GET", "/")):
        assert client.request(method, path, headers=bearer(TOKEN)).status_code == 401


def test_no_token_opens_nothing(anonymous: TestClient) -> None:
    for header in ({}, serving.bearer(""), serving.bearer("None"), {"Authorization": "Bearer"}):
        assert anonymous.get("/metrics", headers=header).status_code == 401


def test_requests_are_counted_by_route(client: TestClient) -> None:
    client.get("/v1/studies/a")
    client.get("/v1/studies/b")
    for number in range(20):
        client.get(f"/nothing/{number}")
    scrape = Scrape(client.get("/metrics").content)
    count = "hpo_http_request_duration_seconds_count"
    assert scrape(count, route="/v1/studies/{name}", status="404", method="GET") == 2
    assert scrape(count, route="unmatched") == 20


class statements:
    """What is sent to the database in the block."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._seen: list[str] = []

    def __enter__(self) -> list[str]:
        event.listen(self._engine, "before_cursor_execute", self._note)
        return self._seen

    def __exit__(self, *_: object) -> None:
        event.remove(self._engine, "before_cursor_execute", self._note)

    def _note(self, _c: object, _k: object, statement: str, *_: object) -> None:
        self._seen.append(statement)
