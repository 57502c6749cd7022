"""Traces for OpenTelemetry, where the standard variables name somebody to send them to."""

import os
from collections.abc import Mapping
from importlib.util import find_spec

from opentelemetry import trace

from hpo_service.core.errors import SetupError

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_EXPORTER = "opentelemetry.exporter.otlp"


def start_tracing(service: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Send the spans of this process on, in batches, as `service` unless OTEL_SERVICE_NAME says otherwise.

    False, and nothing happens, without an OTEL_EXPORTER_OTLP_ENDPOINT or with OTEL_SDK_DISABLED. Raises SetupError
    where the library is missing.
    """
    named = next((name for name in _ENDPOINTS if environment.get(name)), None)
    if named is None or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if not _installed():
        raise SetupError(
            f"{named} is set, but OpenTelemetry's exporter is not installed; "
            "install it with: pip install 'hpo-service[otel]', or unset the variable."
        )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource({"service.name": service}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return True


def _installed() -> bool:
    try:
        return find_spec(f"{_EXPORTER}.proto.http") is not None
    except ModuleNotFoundError:
        return False
