"""One OpenID Connect provider: where people are sent, and the ID token that comes back, verified."""

import hmac
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import BoundedSemaphore, Lock
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from authlib.common.errors import AuthlibBaseError
from authlib.common.urls import add_params_to_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from hpo_service.core.errors import SetupError, Unauthenticated, Unavailable

log = logging.getLogger(__name__)

#: signed with a key that only the provider has; never `none`, and never a secret that both sides know
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
SCOPE = "openid email profile"
_TIMEOUT_SECONDS = 10.0
_KEPT_SECONDS = 3600.0
#: a token that names a key we do not know may be of a key that is new; made-up ones make us ask no more often than this
_ASK_AGAIN_SECONDS = 30.0
_LEEWAY_SECONDS = 60
_LONGEST_TOKEN = 65_536
#: logins that may wait for the provider; the threads that they hold answer everybody
_MOST_AT_ONCE = 8
_LOCAL_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


class Provider:
    """Safe in threads. Nothing is asked before somebody logs in, so the service starts without the provider."""

    def __init__(self, issuer: str, client_id: str, client_secret: str | None, redirect_url: str) -> None:
        self.issuer = issuer
        self.redirect_url = redirect_url
        self._client_id = client_id
        self._client_secret = client_secret
        self._lock = Lock()
        self._places = BoundedSemaphore(_MOST_AT_ONCE)
        self._metadata: tuple[float, Mapping[str, Any]] | None = None
        self._keys: tuple[float, KeySet] | None = None
        for name, url in (("HPO_OIDC_ISSUER", issuer), ("HPO_OIDC_REDIRECT_URL", redirect_url)):
            if not _is_safe(url):
                raise SetupError(
                    f"{name} is {url[:200]!r}; it has to begin with https://, on this machine http:// too."
                )

    def authorization_url(self, state: str, nonce: str, verifier: str) -> str:
        """Where the browser is sent. Raises Unavailable."""
        asked = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self.redirect_url,
            "scope": SCOPE,
            "state": state,
            "nonce": nonce,
            "code_challenge": create_s256_code_challenge(verifier),
            "code_challenge_method": "S256",
        }
        with self._place():
            return str(add_params_to_uri(self._endpoint("authorization_endpoint"), asked.items()))

    def claims(self, code: str, nonce: str, verifier: str) -> Mapping[str, Any]:
        """The claims of whoever came back with `code`.

        Raises:
            Unauthenticated: the provider does not take the code, or its ID token does not verify.
            Unavailable: the provider does not answer.
        """
        with self._place():
            return self._claims(code, nonce, verifier)

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise self._away(f"{_MOST_AT_ONCE} logins wait for it already")
        try:
            yield
        finally:
            self._places.release()

    def _claims(self, code: str, nonce: str, verifier: str) -> Mapping[str, Any]:
        token = self._exchange(code, verifier)
        encoded = token.get("id_token")
        if not isinstance(encoded, str) or len(encoded) > _LONGEST_TOKEN:
            raise _refused("the provider sent no ID token")
        try:
            decoded = self._decode(encoded)
            claims = CodeIDToken(
                decoded.claims,
                decoded.header,
                {
                    "iss": {"essential": True, "value": self.issuer},
                    "aud": {"essential": True, "value": self._client_id},
                    "sub": {"essential": True},
                    "nonce": {"essential": True, "value": nonce},
                },
                {"nonce": nonce, "client_id": self._client_id, "access_token": token.get("access_token")},
            )
            claims.validate(leeway=_LEEWAY_SECONDS)
        except (JoseError, AuthlibBaseError, ValueError, TypeError, KeyError) as error:
            log.warning("an ID token was refused: %s", error)
            raise _refused("its ID token does not verify") from None
        if not hmac.compare_digest(str(claims["nonce"]).encode(), nonce.encode()):
            raise _refused("its ID token answers another request")
        return dict(claims)

    def _exchange(self, code: str, verifier: str) -> Mapping[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": verifier,
            "redirect_uri": self.redirect_url,
            "client_id": self._client_id,
        }
        secret = self._client_secret
        auth = None if secret is None else (quote(self._client_id, safe=""), quote(secret, safe=""))
        try:
            answer = httpx.post(self._endpoint("token_endpoint"), data=form, auth=auth, timeout=_TIMEOUT_SECONDS)
            token = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise self._away(error) from error
        if answer.status_code >= 500:
            raise self._away(f"its token endpoint answers {answer.status_code}")
        if answer.status_code != 200 or not isinstance(token, dict):
            log.warning("the identity provider did not take a code: it answers %d", answer.status_code)
            raise _refused("the provider did not take it")
        return token

    def _decode(self, encoded: str) -> jwt.Token:
        asked, keys = self._known_keys()
        try:
            return jwt.decode(encoded, keys, algorithms=ALGORITHMS)
        except (JoseError, ValueError):
            if time.monotonic() - asked < _ASK_AGAIN_SECONDS:
                raise
        return jwt.decode(encoded, self._known_keys(newer_than=asked)[1], algorithms=ALGORITHMS)

    def _known_keys(self, newer_than: float | None = None) -> tuple[float, KeySet]:
        endpoint = self._endpoint("jwks_uri")
        with self._lock:
            kept = self._keys
            if kept is None or _is_old(kept[0]) or kept[0] == newer_than:
                kept = self._keys = (time.monotonic(), KeySet.import_key_set(self._get(endpoint)))
            return kept

    def _endpoint(self, name: str) -> str:
        with self._lock:
            kept = self._metadata
            if kept is None or _is_old(kept[0]):
                found = self._get(f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
                if found.get("issuer") != self.issuer:
                    raise self._away(f"it calls itself {str(found.get('issuer'))[:200]!r}, not HPO_OIDC_ISSUER")
                kept = self._metadata = (time.monotonic(), found)
        endpoint = kept[1].get(name)
        if not isinstance(endpoint, str) or not _is_safe(endpoint):
            raise self._away(f"its {name} is no https:// address")
        return endpoint

    def _get(self, url: str) -> Any:  # noqa: ANN401 (JSON)
        try:
            answer = httpx.get(url, timeout=_TIMEOUT_SECONDS).raise_for_status()
            document = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise self._away(error) from error
        if not isinstance(document, dict):
            raise self._away(f"{url} is no JSON object")
        return document

    def _away(self, why: object) -> Unavailable:
        log.warning("the identity provider cannot be used: %s", why)
        return Unavailable("The identity provider does not answer as it should; try again, or log in with `hpo login`.")


def _is_safe(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOCAL_HOSTS)


def _is_old(asked: float) -> bool:
    return time.monotonic() - asked > _KEPT_SECONDS


def _refused(why: str) -> Unauthenticated:
    return Unauthenticated(f"The login was not accepted: {why}. Begin again.")
