"""How often one key may ask, and how often one address may come with credentials that are wrong.

Counted in this process: of several replicas each has its own count. Probes and `/metrics` are not limited.
"""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from hashlib import sha256

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hpo_service.api.http.audit_trail import client_of
from hpo_service.api.http.auth import COOKIE
from hpo_service.api.http.problem_pages import readable
from hpo_service.api.http.problems import problem_response
from hpo_service.api.middleware.request_log import PROBED
from hpo_service.auth.principals import Principal
from hpo_service.core.errors import TooManyRequests

Clock = Callable[[], float]
"""Seconds from any moment."""

_LOGINS = ("/login", "/oidc/")
_BURST_SECONDS = 10.0
#: so many keys, addresses or credentials are remembered; who was quiet for longest is forgotten first
_MOST_KNOWN = 10_000
#: of an IPv6 address: whoever has one has all that begin so
_NETWORK_BITS = 64


class Buckets:
    """A token bucket for each of those who ask: full at first, emptied by what they do, filled by time."""

    def __init__(self, per_second: float, burst: float, clock: Clock = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._known: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def wait_seconds(self, who: Hashable) -> float:
        """How long until there is a token for `who`; 0 if there is one."""
        return max(0.0, 1.0 - self._tokens(who)) / self._per_second

    def take(self, who: Hashable) -> None:
        """Take one, if there is one."""
        self._known[who] = (max(0.0, self._tokens(who) - 1.0), self._clock())
        self._known.move_to_end(who)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)

    def _tokens(self, who: Hashable) -> float:
        tokens, at = self._known.get(who, (self._burst, self._clock()))
        return min(self._burst, tokens + (self._clock() - at) * self._per_second)


class KeyLimits:
    """Inside `Guard`: how often a key, with the browsers that it let in, may ask; ten seconds' worth of it at once."""

    def __init__(self, app: ASGIApp, per_second: float, clock: Clock = time.monotonic) -> None:
        """`per_second` 0: no limit."""
        self._app = app
        self._per_second = per_second
        self._buckets = Buckets(per_second, max(1.0, _BURST_SECONDS * per_second), clock) if per_second else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on."""
        principal = _principal(scope)
        if self._buckets is not None and principal is not None and scope["path"] not in PROBED:
            wait = self._buckets.wait_seconds(principal.key_id)
            if wait > 0:
                detail = (
                    f"this API key asks more than {self._per_second:g} times a second (HPO_REQUESTS_PER_SECOND); "
                    f"go on in {_whole(wait)} s, and ask less often or for larger pages."
                )
                await _refuse(detail, wait, scope, receive, send)
                return
            self._buckets.take(principal.key_id)
        await self._app(scope, receive, send)


class AddressLimits:
    """Outside `Guard`: an address that came with wrong credentials too often has to wait.

    Who was let in before goes on, whatever others at the same address do (a proxy's, say).
    """

    def __init__(self, app: ASGIApp, per_minute: float, clock: Clock = time.monotonic) -> None:
        """`per_minute` 0: no limit."""
        self._app = app
        self._per_minute = per_minute
        self._failures = Buckets(per_minute / 60, max(1.0, per_minute), clock) if per_minute else None
        self._let_in: OrderedDict[bytes, None] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on and look at how the answer begins."""
        failures = self._failures
        given = _credentials(scope) if failures is not None and scope["type"] == "http" else None
        if failures is None or given is None or scope["path"] in PROBED:
            await self._app(scope, receive, send)
            return
        kind, digest = given
        who = (kind, _network(client_of(scope)))
        wait = failures.wait_seconds(who)
        if wait > 0 and digest not in self._let_in:
            detail = (
                f"more than {self._per_minute:g} wrong credentials a minute came from this address "
                f"(HPO_FAILED_LOGINS_PER_MINUTE); try again in {_whole(wait)} s, with a key that is valid."
            )
            await _refuse(detail, wait, scope, receive, send)
            return

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] == 401:
                    failures.take(who)
                elif _principal(scope) is not None:
                    self._remember(digest)
            await send(message)

        await self._app(scope, receive, send_noted)

    def _remember(self, digest: bytes) -> None:
        self._let_in[digest] = None
        self._let_in.move_to_end(digest)
        if len(self._let_in) > _MOST_KNOWN:
            self._let_in.popitem(last=False)


def _principal(scope: Scope) -> Principal | None:
    principal: Principal | None = scope.get("state", {}).get("principal")
    return principal


def _credentials(scope: Scope) -> tuple[str, bytes] | None:
    """Which kind a request comes with, and their digest; None if with none, which cannot be wrong."""
    headers = Headers(scope=scope)
    if scope["path"].startswith(_LOGINS):
        return "login", sha256(scope["query_string"]).digest()
    if (key := headers.get("authorization")) is not None:
        return "key", sha256(key.encode()).digest()
    cookie = HTTPConnection(scope).cookies.get(COOKIE)  # as `Guard` reads it
    return None if cookie is None else ("session", sha256(cookie.encode()).digest())


def _network(address: str | None) -> str:
    """Those who count as one."""
    try:
        known = ipaddress.ip_address(address or "")
    except ValueError:
        return address or ""
    if known.version == 4:
        return str(known)
    return str(ipaddress.ip_network((known, _NETWORK_BITS), strict=False))


def _whole(seconds: float) -> int:
    return max(1, math.ceil(seconds))


async def _refuse(detail: str, wait_seconds: float, scope: Scope, receive: Receive, send: Send) -> None:
    error = TooManyRequests(detail, retry_after_seconds=_whole(wait_seconds))
    answer = readable(problem_response(error), scope["path"], Headers(scope=scope))
    await answer(scope, receive, send)
