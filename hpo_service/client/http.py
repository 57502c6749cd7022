"""A small HTTP client of the service, used by the CLI and good in notebooks."""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx

Json = dict[str, Any]
Answer = TypeVar("Answer")

_ATTEMPTS = 5
_FIRST_DELAY_SECONDS = 0.2
_QUIET_SECONDS = 60.0
_TOO_MANY = 429
_LONGEST_WAIT_SECONDS = 10.0
#: a model is read and verified as a whole before its first byte is sent
_VERIFIED_SECONDS = 900.0


class ApiProblem(Exception):
    """The service refused: an RFC 9457 document. `errors` name fields by JSON pointer."""

    def __init__(self, status: int, code: str, detail: str, errors: tuple[Json, ...] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors


class ServiceUnreachable(Exception):
    """Nothing answers at the service's address."""


@dataclass(frozen=True, kw_only=True)
class StudyEvent:
    """One server-sent event; `id` is where a stream goes on after it."""

    id: int
    kind: str
    data: Json


class Client:
    """Talks to one service with one API key. Reads are repeated when the connection fails, writes are not.

    Where the service says that it is asked too often, everything waits and is repeated.
    """

    def __init__(self, url: str, key: str | None, *, timeout_seconds: float = 30.0, attempts: int = _ATTEMPTS) -> None:
        self.url = url.rstrip("/")
        self._attempts = attempts
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout_seconds, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **query: str | int) -> Json:
        """The JSON at `path`."""
        return _json(self._repeated(path, query))

    def pages(self, path: str, **query: str | int) -> Iterator[Json]:
        """Every item of the collection at `path`, page by page."""
        token: str | None = None
        while True:
            page = self.get(path, **query, **({"page_token": token} if token else {}))
            yield from page["items"]
            token = page["next_page_token"]
            if token is None:
                return

    def get_response(self, path: str, **query: str | int) -> httpx.Response:
        """The answer at `path` as it is, text and headers."""
        return self._repeated(path, query)

    def post(self, path: str, body: object = None, *, idempotency_key: str | None = None) -> Json:
        """The JSON answered to `body`."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return _json(self._send("POST", path, body=body, headers=headers))

    def create_study(self, spec: Mapping[str, Any]) -> Json:
        """Post a study. A repetition after a lost connection cannot make a second one."""
        key = str(uuid.uuid4())
        return self._repeat(lambda: self.post("/v1/studies", spec, idempotency_key=key))

    def promote(self, study: str, name: str, *, trial: int | None = None, note: str = "") -> Json:
        """Make a trial of a study (None: its best) the next version of a promotion, once even after a lost answer."""
        key, body = str(uuid.uuid4()), {"study": study, "name": name, "trial": trial, "note": note}
        return self._repeat(lambda: self.post("/v1/promotions", body, idempotency_key=key))

    def deliver(
        self, promotion: str, *, merge: bool = False, quantize: str | None = None, retrain: bool = False
    ) -> Json:
        """Make a model of a promotion called `NAME` or `NAME@VERSION`, once even after a lost answer."""
        key, body = str(uuid.uuid4()), {"merge": merge, "quantize": quantize, "retrain": retrain}
        path = f"{promotion_path(promotion)}/deliveries"
        return self._repeat(lambda: self.post(path, body, idempotency_key=key))

    def patch_study(self, name: str, changes: Mapping[str, Any]) -> Json:
        """Extend a study's budget or ranges, provided that nobody changes it meanwhile."""
        current = self._repeated(study_path(name), {})
        headers = {"If-Match": current.headers["ETag"]} if "ETag" in current.headers else {}
        return _json(self._send("PATCH", study_path(name), body=changes, headers=headers))

    def delete_study(self, name: str) -> None:
        """Forget an ended study and its snapshots."""
        self._send("DELETE", study_path(name))

    @contextmanager
    def events(self, name: str, after: int) -> Iterator[Iterator[StudyEvent]]:
        """The study's events after the one with id `after`, as they come; ends when the connection does."""
        headers = {"Last-Event-ID": str(after), "Accept": "text/event-stream"}
        stream = self._http.stream("GET", f"{study_path(name)}/events", headers=headers, timeout=_QUIET_SECONDS)
        with _transport_errors(self.url), stream as answer:
            if answer.is_error:
                answer.read()
                if answer.status_code == _TOO_MANY:  # who follows a study comes again
                    _wait(answer)
                    raise ServiceUnreachable(_problem(answer).detail)
                raise _problem(answer)
            yield _parse_events(answer.iter_lines())

    @contextmanager
    def download(self, path: str) -> Iterator[Iterator[bytes]]:
        """What is at `path`, piece by piece."""
        for attempt in range(self._attempts):
            stream = self._http.stream("GET", path, timeout=_VERIFIED_SECONDS)
            with _transport_errors(self.url), stream as answer:
                if not answer.is_error:
                    yield answer.iter_bytes()
                    return
                answer.read()
            if self._is_final(answer, attempt):
                raise _problem(answer)
            _wait(answer)

    def _repeated(self, path: str, query: Mapping[str, str | int]) -> httpx.Response:
        return self._repeat(lambda: self._send("GET", path, query=query))

    def _repeat(self, ask: Callable[[], Answer]) -> Answer:
        for attempt in range(self._attempts - 1):
            try:
                return ask()
            except ServiceUnreachable:
                time.sleep(_FIRST_DELAY_SECONDS * 2**attempt)
        return ask()

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        for attempt in range(self._attempts):
            with _transport_errors(self.url):
                answer = self._http.request(method, path, json=body, params=query, headers=headers)
            if self._is_final(answer, attempt):
                break
            _wait(answer)  # nothing was done
        if answer.is_error:
            raise _problem(answer)
        return answer

    def _is_final(self, answer: httpx.Response, attempt: int) -> bool:
        return answer.status_code != _TOO_MANY or attempt == self._attempts - 1


def study_path(name: str) -> str:
    """Path of a study."""
    return f"/v1/studies/{quote(name, safe='')}"


def promotion_path(promotion: str) -> str:
    """Path of a promotion called `NAME` (its latest version) or `NAME@VERSION`."""
    name, _, version = promotion.partition("@")
    return f"/v1/promotions/{quote(name, safe='')}/{quote(version or 'latest', safe='')}"


def best_config(promotion: str, *, url: str | None = None, key: str | None = None) -> Json:
    """The document of a promotion, for a training job to read at its start: `["parameters"]["learning_rate"]`.

    `promotion` is `NAME` (its latest version) or `NAME@VERSION`. Without `url` and `key` the service is found as the
    command `hpo` finds it.

    Raises:
        ApiProblem: there is no such promotion, or it waits for approval.
        ServiceUnreachable: nothing answers.
    """
    from hpo_service.client.discovery import connect

    with Client(url, key) if url is not None else connect() as client:
        return client.get(f"{promotion_path(promotion)}/export", format="json")


@contextmanager
def _transport_errors(url: str) -> Iterator[None]:
    try:
        yield
    except httpx.TransportError as error:
        raise ServiceUnreachable(f"No service answers at {url} ({error or type(error).__name__}).") from error
    except httpx.InvalidURL as error:
        raise ServiceUnreachable(f"{url} is not an address of a service ({error}).") from error


def _wait(answer: httpx.Response) -> None:
    """As long as the service says, within reason."""
    told = answer.headers.get("Retry-After", "")
    time.sleep(min(float(told) if told.isdecimal() else 1.0, _LONGEST_WAIT_SECONDS))


def _json(answer: httpx.Response) -> Json:
    return dict(answer.json()) if answer.content else {}


def _problem(answer: httpx.Response) -> ApiProblem:
    try:
        document = answer.json()
        return ApiProblem(
            answer.status_code,
            str(document.get("code", "internal")),
            str(document.get("detail") or document.get("title") or answer.reason_phrase),
            tuple(document.get("errors", ())),
        )
    except (ValueError, AttributeError):
        return ApiProblem(answer.status_code, "internal", f"The service answered {answer.status_code}.")


def _parse_events(lines: Iterator[str]) -> Iterator[StudyEvent]:
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            fields[name] = f"{fields[name]}\n{value}" if name == "data" and "data" in fields else value
            continue
        if "data" in fields and fields.get("id", "").isdigit():
            yield StudyEvent(id=int(fields["id"]), kind=fields.get("event", "message"), data=json.loads(fields["data"]))
        fields = {}
