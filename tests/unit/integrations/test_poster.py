"""What is posted goes to the address that was checked, and to no other."""

import ipaddress
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing

import pytest

from hpo_service.integrations.base import SinkAway, SinkRefused
from hpo_service.integrations.poster import Poster, is_public
from tests import hostile
from tests.receiving import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver.open() as receiver:
        yield receiver


def test_a_name_is_looked_up_once_and_kept_as_the_host(receiver: Receiver) -> None:
    asked = list[str]()

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    Poster(allow_private=True, resolve=resolve).post(f"http://hooks.example:{receiver.port}/in?a=1", b"{}", {})
    assert asked == ["hooks.example"]
    (got,) = receiver.got
    assert (got.headers["host"], got.path, got.content) == (f"hooks.example:{receiver.port}", "/in?a=1", b"{}")


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["169.254.169.254"], ["::1"], ["::ffff:192.168.0.1"]]
)
def test_private_addresses_are_refused_with_the_remedy(addresses: list[str]) -> None:
    poster = Poster(allow_private=False, resolve=lambda host, port: addresses)
    with pytest.raises(SinkRefused, match="HPO_NOTIFY_PRIVATE"):
        poster.post("https://hooks.example/", b"", {})


def test_no_address_leads_back_to_this_machine() -> None:
    """Every way to write a local address, looked up for real; whoever connects would be seen."""
    with closing(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)) as listener:
        listener.setblocking(False)
        for written in hostile.LOCAL_URLS:
            url = written.format(port=listener.getsockname()[1])
            with pytest.raises((SinkRefused, SinkAway)) as error:
                Poster(allow_private=False).post(url, b"", {})
            if "does not answer" in str(error.value):
                pytest.fail(f"{url} was posted to: {error.value}")
            with pytest.raises(BlockingIOError):
                listener.accept()


@pytest.mark.parametrize("url", ["http://hooks.example/", "file:///etc/passwd", "gopher://hooks.example/", "https:///"])
def test_other_schemes_are_refused_without_a_lookup(url: str) -> None:
    def resolve(host: str, port: int) -> list[str]:
        raise AssertionError(f"{host} was looked up")

    with pytest.raises(SinkRefused):
        Poster(allow_private=False, resolve=resolve).post(url, b"", {})


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.status, receiver.location = 307, f"http://127.0.0.1:{receiver.port}/elsewhere"
    with pytest.raises(SinkRefused, match="redirects are not followed"):
        Poster(allow_private=True).post(f"http://127.0.0.1:{receiver.port}/in", b"x", {})
    assert [got.path for got in receiver.got] == ["/in"]


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, SinkRefused), (404, SinkRefused), (410, SinkRefused), (408, SinkAway), (429, SinkAway), (503, SinkAway)],
)
def test_what_an_answer_means(receiver: Receiver, status: int, error: type[Exception]) -> None:
    receiver.status = status
    with pytest.raises(error, match=str(status)):
        Poster(allow_private=True).post(f"http://127.0.0.1:{receiver.port}/", b"", {})


def test_nobody_there(receiver: Receiver) -> None:
    poster = Poster(allow_private=True)
    receiver.server.socket.close()
    with pytest.raises(SinkAway):
        poster.post("http://127.0.0.1:9/", b"", {})
    with pytest.raises(SinkAway, match="no address"):
        poster.post("http://nobody.invalid/", b"", {})


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("10.1.2.3", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::7f00:1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::808:808", True),
        ("2002:7f00:1::", False),
        ("::ffff:10.0.0.1", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("64:ff9b:1::7f00:1", False),
        ("198.18.0.1", False),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public


def test_a_certificate_is_checked_against_the_name(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    names = list[str | bytes | None]()
    wrap = ssl.SSLContext.wrap_socket

    def noted(self: ssl.SSLContext, sock: object, *args: object, **options: object) -> object:
        names.append(options.get("server_hostname"))  # type: ignore[arg-type]
        assert self.check_hostname
        return wrap(self, sock, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", noted)
    poster = Poster(allow_private=True, resolve=lambda host, port: ["127.0.0.1"])
    with pytest.raises(SinkAway):
        poster.post(f"https://hooks.example:{receiver.port}/", b"", {})
    assert names == ["hooks.example"]
