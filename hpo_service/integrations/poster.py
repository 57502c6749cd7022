"""POST to an address that somebody configured, and to nowhere else: no private address, no redirect, no proxy."""

import ipaddress
import socket
from collections.abc import Callable, Mapping

import httpx

from hpo_service.integrations.base import SinkAway, SinkRefused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], list[str]]

_TIMEOUT_SECONDS = 10.0
_PORTS = {"http": 80, "https": 443}
_PASSING_STATUSES = frozenset({408, 425, 429})
#: RFC 8215: translators of a network's own, into whatever they lead to
_LOCAL_TRANSLATION = ipaddress.IPv6Network("64:ff9b:1::/48")
#: the last 32 bits are another address, to which translators hand on
_PACKED = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))


def resolve(host: str, port: int) -> list[str]:
    """Addresses of a host, as this machine finds them. Raises OSError."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class Poster:
    """Names are looked up once, and the connection goes to the address that was checked.

    With `allow_private` anything goes, plain http:// too: for receivers in one's own network.
    """

    def __init__(self, *, allow_private: bool, resolve: Resolve = resolve) -> None:
        self._allow_private = allow_private
        self._resolve = resolve
        self._http = httpx.Client(trust_env=False, follow_redirects=False, timeout=_TIMEOUT_SECONDS)

    def post(self, url: str, content: bytes, headers: Mapping[str, str]) -> None:
        """Hand the content over; what is answered is not read.

        Raises:
            SinkAway: no answer, or one that says "later".
            SinkRefused: the URL leads where it must not, or the receiver does not want this.
        """
        try:
            target = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise SinkRefused("what a notice should be posted to is no URL; look at its host and port") from error
        host, address = target.host, self._checked_address(target)
        request = self._http.build_request(
            "POST",
            target.copy_with(host=address),
            content=content,
            headers={**headers, "Host": target.netloc.decode("ascii")},
            extensions={"sni_hostname": host},
        )
        try:
            answer = self._http.send(request, stream=True)
            answer.close()
        except httpx.TransportError as error:
            raise SinkAway(f"{host} does not answer: {error}") from error
        _require_taken(host, answer.status_code)

    def _checked_address(self, url: httpx.URL) -> str:
        if url.scheme not in _PORTS or not url.host:
            raise SinkRefused(f"a URL that begins with {url.scheme!r} cannot be posted to; use https://")
        if url.scheme != "https" and not self._allow_private:
            raise SinkRefused(f"{url.host} would be told in the clear; use https://, or set HPO_NOTIFY_PRIVATE=true")
        try:
            addresses = self._resolve(url.host, url.port or _PORTS[url.scheme])
        except (OSError, UnicodeError) as error:
            raise SinkAway(f"{url.host} has no address: {error}") from error
        private = [address for address in addresses if not is_public(ipaddress.ip_address(address))]
        if private and not self._allow_private:
            raise SinkRefused(
                f"{url.host} leads to {private[0]}, which is not a public address; "
                "set HPO_NOTIFY_PRIVATE=true if that is meant"
            )
        return addresses[0]


def is_public(address: Address) -> bool:
    """Whether everybody reaches the same host there, whatever it is packed into."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if any(address in network for network in _PACKED):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address.teredo is not None or address.is_site_local or address in _LOCAL_TRANSLATION:
            return False
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast


def _require_taken(host: str, status: int) -> None:
    if 200 <= status < 300:
        return
    if 300 <= status < 400:
        raise SinkRefused(f"{host} answers {status}; redirects are not followed, so name where it leads")
    if status < 500 and status not in _PASSING_STATUSES:
        raise SinkRefused(f"{host} answers {status}")
    raise SinkAway(f"{host} answers {status}")
