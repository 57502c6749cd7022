"""Token buckets by a clock that the test moves, and what callers get that ask too often."""

import asyncio
from collections.abc import Iterable

import pytest
from starlette.types import Message, Receive, Scope, Send

from hpo_service.api.middleware import rate_limits
from hpo_service.api.middleware.rate_limits import AddressLimits, Buckets, KeyLimits
from hpo_service.auth.principals import Principal


class FakeClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Backend:
    """Lets in whose `Authorization` is `good…`, as `Guard` does."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        key = dict(scope["headers"]).get(b"authorization", b"")
        status = 200 if key.startswith(b"good") else 401
        if status == 200:
            scope.setdefault("state", {})["principal"] = caller(1)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body"})


def caller(key_id: int) -> Principal:
    return Principal(project_id=1, key_id=key_id, scopes=frozenset())


def ask(
    app: AddressLimits | KeyLimits,
    key: str | None = None,
    *,
    address: str = "192.0.2.1",
    path: str = "/v1/studies",
    cookie: str | None = None,
    principal: Principal | None = None,
) -> tuple[int, int | None]:
    """Status and `Retry-After` of one request."""
    headers = [(b"authorization", key.encode())] if key is not None else []
    headers += [(b"cookie", cookie.encode())] if cookie is not None else []
    scope: Scope = {
        "type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers,
        "client": (address, 1), "state": {} if principal is None else {"principal": principal},
    }  # fmt: skip
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    told = dict(sent[0]["headers"]).get(b"retry-after")
    return sent[0]["status"], None if told is None else int(told)


def statuses(answers: Iterable[tuple[int, int | None]]) -> list[int]:
    return [status for status, _ in answers]


def test_a_bucket_is_full_at_first_and_fills_with_time() -> None:
    clock = FakeClock()
    buckets = Buckets(2.0, 3.0, clock)
    for _ in range(3):
        assert buckets.wait_seconds("a") == 0
        buckets.take("a")
    assert (buckets.wait_seconds("a"), buckets.wait_seconds("b")) == (0.5, 0)
    clock.now += 0.25
    assert buckets.wait_seconds("a") == pytest.approx(0.25)
    clock.now += 0.25
    assert buckets.wait_seconds("a") == 0
    clock.now += 1e6
    for _ in range(3):
        buckets.take("a")
    assert buckets.wait_seconds("a") > 0


def test_who_is_forgotten_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "_MOST_KNOWN", 2)
    buckets = Buckets(1.0, 1.0, FakeClock())
    for who in ("a", "b", "c"):
        buckets.take(who)
    assert [buckets.wait_seconds(who) > 0 for who in ("a", "b", "c")] == [False, True, True]


def test_a_key_that_asks_too_often_is_told_when_to_go_on() -> None:
    clock, backend = FakeClock(), Backend()
    app = KeyLimits(backend, 2.0, clock)
    assert set(statuses(ask(app, "good", principal=caller(7)) for _ in range(20))) == {200}
    assert ask(app, "good", principal=caller(7)) == (429, 1)
    assert backend.asked == 20
    assert ask(app, "good", principal=caller(8))[0] == 200
    for path in ("/healthz", "/readyz", "/metrics"):
        assert ask(app, "good", path=path, principal=caller(7))[0] == 200
    assert ask(app, "good")[0] == 200  # the token of /metrics
    clock.now += 1
    assert statuses(ask(app, "good", principal=caller(7)) for _ in range(3)) == [200, 200, 429]


def test_without_limits_nothing_is_counted() -> None:
    backend = Backend()
    app = AddressLimits(KeyLimits(backend, 0), 0)
    assert set(statuses(ask(app, "bad") for _ in range(2000))) == {401}


def test_wrong_keys_close_an_address_for_a_while() -> None:
    clock, backend = FakeClock(), Backend()
    app = AddressLimits(backend, 3.0, clock)
    assert statuses(ask(app, f"bad {number}") for number in range(4)) == [401, 401, 401, 429]
    assert ask(app, "good")[1] == 20
    assert ask(app, "good", address="192.0.2.2")[0] == 200
    clock.now += 20
    assert ask(app, "good")[0] == 200
    assert ask(app, "bad")[0] == 401
    assert backend.asked == 6


def test_who_was_let_in_goes_on_beside_one_that_fails() -> None:
    """Behind a proxy all have one address."""
    app = AddressLimits(Backend(), 2.0, FakeClock())
    assert ask(app, "good one")[0] == 200
    assert statuses(ask(app, "bad") for _ in range(3)) == [401, 401, 429]
    assert (ask(app, "good one")[0], ask(app, "good two")[0]) == (200, 429)


def test_nothing_but_wrong_credentials_counts() -> None:
    app = AddressLimits(Backend(), 2.0, FakeClock())
    assert set(statuses(ask(app) for _ in range(9))) == {401}
    assert statuses(ask(app, cookie="hpo_session=old") for _ in range(3)) == [401, 401, 429]
    assert ask(app, cookie="a b{}; hpo_session=old")[0] == 429  # read as the guard reads it
    assert statuses(ask(app, path="/login") for _ in range(3)) == [401, 401, 429]
    assert ask(app, "good")[0] == 200


def test_a_network_of_ipv6_counts_as_one() -> None:
    app = AddressLimits(Backend(), 2.0, FakeClock())
    asked = [ask(app, "bad", address=f"2001:db8::{number}") for number in (1, 2, 3)]
    assert statuses(asked) == [401, 401, 429]
    assert ask(app, "bad", address="2001:db8:0:1::1")[0] == 401
