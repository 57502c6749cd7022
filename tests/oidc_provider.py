"""A small OpenID Connect provider over HTTP, with keys of its own, that does as a test tells it."""

import base64
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

Json = dict[str, Any]
CLIENT_ID = "hpo service"
CLIENT_SECRET = "s3cret/with:odd+characters"
ALICE: Json = {"sub": "alice-1", "email": "alice@example.com", "email_verified": True, "groups": ["ml", "everyone"]}


def _encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def sign(claims: Json, key: RSAKey) -> str:
    """As RS256, by the name of the key."""
    return jwt.encode({"alg": "RS256", "kid": key.kid}, claims, key)


def unsigned(claims: Json, _key: RSAKey) -> str:
    """With the algorithm `none`."""
    parts = [_encoded(json.dumps(part).encode()) for part in ({"alg": "none"}, claims)]
    return ".".join([*parts, ""])


def signed_with_the_public_key(claims: Json, key: RSAKey) -> str:
    """As HS256, with what everybody knows as the secret."""
    parts = [_encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "kid": key.kid}, claims)]
    signed = hmac.digest(key.as_pem(private=False), ".".join(parts).encode(), "sha256")
    return ".".join([*parts, _encoded(signed)])


@dataclass
class Provider:
    """Who logs in next, and how the ID token is made of it."""

    url: str = ""
    key: RSAKey = field(default_factory=lambda: new_key("first"))
    published: list[RSAKey] = field(default_factory=list)  #: without any: `key`
    person: Json = field(default_factory=lambda: dict(ALICE))
    claims: Json = field(default_factory=dict)  #: instead of what belongs there; None leaves a claim out
    sign: Callable[[Json, RSAKey], str] = sign
    metadata: Json = field(default_factory=dict)
    token_status: int = 200
    asked: list[tuple[str, Json]] = field(default_factory=list)
    codes: dict[str, Json] = field(default_factory=dict)

    def answer(self, method: str, path: str, given: Json, authorization: str) -> tuple[int, Mapping[str, Any] | str]:
        """Status with a JSON document, or with where to go."""
        self.asked.append((path, given))
        if path == "/.well-known/openid-configuration":
            return 200, self._metadata()
        if path == "/jwks":
            return 200, {"keys": [key.as_dict(private=False) for key in self.published or [self.key]]}
        if path == "/authorize":
            code = f"code-{len(self.codes)}"
            self.codes[code] = given
            return 302, f"{given['redirect_uri']}?{urlencode({'code': code, 'state': given['state'], 'iss': self.url})}"
        if (method, path) == ("POST", "/token"):
            return self._token(given, authorization)
        return 404, {}

    def _metadata(self) -> Json:
        places = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "jwks"}
        return {"issuer": self.url, **{name: f"{self.url}/{path}" for name, path in places.items()}} | self.metadata

    def _token(self, given: Json, authorization: str) -> tuple[int, Json]:
        if self.token_status != 200:
            return self.token_status, {"error": "invalid_grant"}
        scheme, _, pair = authorization.partition(" ")
        user, _, password = base64.b64decode(pair).decode().partition(":")
        if (scheme, unquote(user), unquote(password)) != ("Basic", CLIENT_ID, CLIENT_SECRET):
            return 401, {"error": "invalid_client"}
        asked = self.codes.pop(given.get("code", ""), None)
        challenge = _encoded(sha256(given.get("code_verifier", "").encode()).digest())
        if asked is None or asked["code_challenge"] != challenge or asked["redirect_uri"] != given["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        return 200, {"access_token": "opaque", "token_type": "Bearer", "id_token": self._id_token(asked)}

    def _id_token(self, asked: Json) -> str:
        now = int(time.time())
        said = {"iss": self.url, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": asked["nonce"]}
        said |= self.person | self.claims
        return self.sign({name: value for name, value in said.items() if value is not None}, self.key)


def new_key(name: str) -> RSAKey:
    """A key pair."""
    return RSAKey.generate_key(2048, {"kid": name, "use": "sig", "alg": "RS256"}, private=True)


@contextmanager
def provider() -> Iterator[Provider]:
    """Running on a port of its own."""
    state = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            self._send(*state.answer("GET", parts.path, _single(parts.query), ""))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self._send(*state.answer("POST", self.path, _single(body), self.headers.get("Authorization", "")))

        def _send(self, status: int, said: Mapping[str, Any] | str) -> None:
            self.send_response(status)
            if isinstance(said, str):
                self.send_header("Location", said)
            body = b"" if isinstance(said, str) else json.dumps(said).encode()
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _single(query: str) -> Json:
    return {name: values[0] for name, values in parse_qs(query).items()}
