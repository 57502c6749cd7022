"""Outermost: every request gets an id, which its answer and all lines that it logs carry, and one line of its own."""

import logging
import re
import secrets
import time
from collections.abc import Callable

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hpo_service.api.http.problem_pages import readable
from hpo_service.api.http.problems import unexpected_response
from trainer.common.logs import bound

log = logging.getLogger(__name__)

HEADER = "X-Request-ID"
#: what stands for the route where none matched, so that made-up addresses make no labels
UNMATCHED = "unmatched"
_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
PROBED = frozenset({"/healthz", "/readyz", "/metrics"})
_LONGEST_PATH = 200
#: of the spans of requests: none of probes, and none below a request
TELEMETRY: TelemetryConfig = {
    "operation_spans": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
    "exclude": lambda scope: scope["path"] in PROBED,
}

Observe = Callable[[str, str, int, float], None]
"""Gets method, route, status and the seconds until the answer began."""


class RequestLog:
    """Paths are logged and traced without their query: that of a login link is a secret."""

    def __init__(self, app: ASGIApp, observe: Observe) -> None:
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, whatever happens inside."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, _given_id(Headers(scope=scope)) or secrets.token_hex(8))
        scope.setdefault("state", {})["request_id"] = answer.request_id
        span = trace.get_current_span()
        span.set_attributes({"hpo.request_id": answer.request_id, "url.query": ""})
        with bound(request_id=answer.request_id):
            try:
                await self._app(scope, receive, answer.send)
            except Exception:
                log.exception("unexpected error")
                if answer.status is not None:
                    raise
                failure = readable(unexpected_response(), scope["path"], Headers(scope=scope))
                await failure(scope, receive, answer.send)
            finally:
                self._note(scope, answer)

    def _note(self, scope: Scope, answer: "_Answer") -> None:
        status = 499 if answer.status is None else answer.status  # the caller went away before there was an answer
        route = getattr(scope.get("route"), "path_format", UNMATCHED)
        self._observe(scope["method"], route, status, answer.seconds)
        if scope["path"] in PROBED and status < 500:
            return
        path = scope["path"][:_LONGEST_PATH]
        fields = {"method": scope["method"], "path": path, "status": status, "seconds": round(answer.seconds, 4)}
        principal = scope.get("state", {}).get("principal")
        if principal is not None:
            fields["key_id"] = principal.key_id
        log.info("request", extra=fields)


class _Answer:
    """Puts the id into the answer, and remembers how and when it began."""

    def __init__(self, send: Send, request_id: str) -> None:
        self.request_id = request_id
        self.status: int | None = None
        self._send = send
        self._began_at: float | None = None
        self._asked_at = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Until the answer began: a stream of events lasts as long as its study."""
        return (self._began_at or time.perf_counter()) - self._asked_at

    async def send(self, message: Message) -> None:
        """Hand on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._began_at = time.perf_counter()
            MutableHeaders(scope=message)[HEADER] = self.request_id
        await self._send(message)


def _given_id(headers: Headers) -> str | None:
    given = headers.get(HEADER)
    return given if given is not None and _GIVEN_ID.fullmatch(given) else None
