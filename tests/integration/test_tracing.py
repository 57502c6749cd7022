"""Spans of requests and of slices, with the ids that logs carry; none without somebody to send them to."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.errors import SetupError
from hpo_service.observability import tracing
from hpo_service.observability.tracing import start_tracing
from tests import dispatching


class _Kept(SimpleSpanProcessor):
    """Keeps spans of the tests of this file only: a process has one provider, which is set once and for all."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.open = False
        super().__init__(self.exporter)

    def on_end(self, span: ReadableSpan) -> None:
        if self.open:
            super().on_end(span)


_KEPT = _Kept()


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """What is exported."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        provider = TracerProvider()
        provider.add_span_processor(_KEPT)
        trace.set_tracer_provider(provider)
    _KEPT.open = True
    yield _KEPT.exporter
    _KEPT.open = False
    _KEPT.exporter.clear()


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def test_a_request_is_a_span_with_its_id_and_without_its_query(
    client: TestClient, anonymous: TestClient, spans: InMemorySpanExporter
) -> None:
    answer = client.get("/v1/studies", params={"page_size": 3}, headers={"X-Request-ID": "asked-1"})
    assert answer.headers["X-Request-ID"] == "asked-1"
    anonymous.get("/login", params={"token": "canary"})
    for probe in ("/healthz", "/readyz", "/metrics"):
        client.get(probe)
    found = [attributes(span) for span in spans.get_finished_spans()]
    assert [one["url.path"] for one in found] == ["/v1/studies", "/login"]
    assert found[0]["hpo.request_id"] == "asked-1"
    assert found[0]["http.route"] == "/v1/studies"
    assert found[0]["http.response.status_code"] == 200
    assert "canary" not in "".join(span.to_json() for span in spans.get_finished_spans())


def test_attempts_are_spans_once_they_are_committed(
    engine: Engine, sessions: sessionmaker[Session], spans: InMemorySpanExporter
) -> None:
    dispatcher, fake = dispatching.make(sessions)
    study_id = dispatching.post_study(sessions)
    fake.hold = True
    dispatching.turn_until(dispatcher, lambda: bool(fake.submitted))
    fake.kill(fake.workers()[0])
    fake.hold = False
    dispatching.turn_until(dispatcher, lambda: dispatching.state_of(sessions, study_id) == "completed")
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT slice_id, attempt, outcome FROM hpo.attempts ORDER BY 1, 2")).all()
    ended = [span for span in spans.get_finished_spans() if span.name == "slice"]
    told = [tuple(attributes(one)[f"hpo.{name}"] for name in ("slice_id", "attempt", "outcome")) for one in ended]
    assert sorted(told, key=str) == sorted((tuple(row) for row in rows), key=str)
    lost = [one for one in ended if attributes(one)["hpo.outcome"] == "lost"]
    assert [attributes(one)["hpo.cause"] for one in lost] == ["worker_died"]
    assert lost[0].status.status_code is StatusCode.ERROR
    assert all((one.end_time or 0) >= (one.start_time or 0) for one in ended)
    assert {attributes(one)["hpo.study"] for one in ended} == {"s"}


def test_off_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    assert start_tracing("hpo-api", {}) is False
    address = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
    assert start_tracing("hpo-api", address | {"OTEL_SDK_DISABLED": "true"}) is False
    monkeypatch.setattr(tracing, "_installed", lambda: False)
    with pytest.raises(SetupError, match=r"hpo-service\[otel\]"):
        start_tracing("hpo-api", address)


def test_spans_go_to_the_address_under_the_service_s_name() -> None:
    """In a process of its own, which ends with all of them sent."""
    program = """
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
import gzip, os
got = []
class Collector(BaseHTTPRequestHandler):
    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            content = gzip.decompress(content)
        got.append((self.path, ExportTraceServiceRequest.FromString(content)))
        self.send_response(200); self.end_headers()
    def log_message(self, *_): ...
server = HTTPServer(("127.0.0.1", 0), Collector)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
from hpo_service.observability.tracing import start_tracing
assert start_tracing("hpo-dispatcher")
trace.get_tracer("t").start_span("slice").end()
trace.get_tracer_provider().shutdown()
(path, request), = got
resource, = request.resource_spans
names = {one.key: one.value.string_value for one in resource.resource.attributes}
print(path, names["service.name"], resource.scope_spans[0].spans[0].name)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["/v1/traces", "hpo-dispatcher", "slice"], done.stderr
