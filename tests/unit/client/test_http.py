"""The HTTP client: what it does where the service says that it is asked too often."""

from collections.abc import Callable

import httpx
import pytest

from hpo_service.client.http import ApiProblem, Client


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For how many seconds the client waited."""
    found: list[float] = []
    monkeypatch.setattr("hpo_service.client.http.time.sleep", found.append)
    return found


def refusing(times: int) -> Client:
    """A client of a service that refuses so many times before it answers."""
    left = iter(range(times))

    def answer(_: httpx.Request) -> httpx.Response:
        if next(left, None) is None:
            return httpx.Response(200, json={"content": "all of it"})
        return httpx.Response(429, headers={"Retry-After": "3"}, json={"code": "too_many_requests", "detail": "wait"})

    client = Client("http://service", None)
    client._http = httpx.Client(base_url=client.url, transport=httpx.MockTransport(answer))
    return client


def read(client: Client) -> bytes:
    return client.get_response("/v1/studies").content


def download(client: Client) -> bytes:
    with client.download("/v1/deliveries/1/artifacts/adapter") as chunks:
        return b"".join(chunks)


@pytest.mark.parametrize("ask", [read, download])
def test_reads_and_downloads_wait_as_told_and_are_repeated(ask: Callable[[Client], bytes], waited: list[float]) -> None:
    assert b"all of it" in ask(refusing(2))
    assert waited == [3.0, 3.0]


@pytest.mark.parametrize("ask", [read, download])
def test_in_the_end_the_refusal_is_told(ask: Callable[[Client], bytes], waited: list[float]) -> None:
    with pytest.raises(ApiProblem, match="wait"):
        ask(refusing(99))
    assert len(waited) == 4
