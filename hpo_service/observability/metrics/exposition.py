"""All metrics of one API process as text. The database is looked at once in some seconds, whoever asks."""

import logging
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool

from hpo_service.observability.metrics.database import read_database
from hpo_service.observability.metrics.events import EventCounts
from hpo_service.storage.queries.metrics import Figures

log = logging.getLogger(__name__)

#: so long one look at the database answers for
FRESH_SECONDS = 10.0
_HTTP_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Thread-safe."""

    def __init__(self, engine: Engine, *, revision: str = "", fresh_seconds: float = FRESH_SECONDS) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._engine = engine
        self._fresh_seconds = fresh_seconds
        self._lock = threading.Lock()
        self._looked_at = float("-inf")
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        build = Gauge("hpo_build_info", "1; which program this is.", ["version", "git_sha"], registry=self._registry)
        build.labels(version=version("hpo-service"), git_sha=revision).set(1)
        self._pool_in_use = Gauge(
            "hpo_db_pool_in_use", "Connections to the database that are lent out.", registry=self._registry
        )
        self._http_seconds = Histogram(
            "hpo_http_request_duration_seconds",
            "Until an answer began, by the template of its address.",
            ["method", "route", "status"],
            buckets=_HTTP_SECONDS,
            registry=self._registry,
        )
        self._events = EventCounts(self._registry)
        self._look = _Look()
        self._registry.register(self._look)

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer; `route` must be a template, never an address that somebody made up."""
        self._http_seconds.labels(method=method, route=route, status=str(status)).observe(seconds)

    def exposition(self) -> bytes:
        """Prometheus' text format. Without a database `hpo_database_up` is 0 and nothing is told of what is in it."""
        with self._lock:
            if time.monotonic() - self._looked_at >= self._fresh_seconds:
                self._refresh()
                self._looked_at = time.monotonic()
            if isinstance(self._engine.pool, QueuePool):
                self._pool_in_use.set(self._engine.pool.checkedout())
            return generate_latest(self._registry)

    def _refresh(self) -> None:
        began_at = time.monotonic()
        try:
            reading = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with reading.connect() as connection, connection.begin():
                figures = Figures(connection)
                metrics = read_database(figures)
                self._events.read(figures)
        except (DBAPIError, PoolTimeoutError) as error:
            log.warning("the metrics cannot be read off the database: %s", str(error).splitlines()[0])
            self._look.metrics, self._look.up = [], False
        else:
            self._look.metrics, self._look.up = metrics, True
        self._look.seconds = time.monotonic() - began_at


class _Look(Collector):
    """What the last look at the database found."""

    def __init__(self) -> None:
        self.metrics: list[Metric] = []
        self.up = False
        self.seconds = 0.0

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("hpo_database_up", "1: the last look at the database succeeded.", value=float(self.up))
        yield GaugeMetricFamily("hpo_metrics_refresh_seconds", "How long it took.", value=self.seconds)
        yield from self.metrics
