"""Hostile text in every place of a request: refused with a code and a sentence, or kept as the text that it is."""

import io
import json
import logging
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any
from unicodedata import category
from urllib.parse import quote

import pytest
import yaml
from fastapi.testclient import TestClient
from markdown_it import MarkdownIt
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.exporters import FORMATS
from tests import hostile, serving
from tests.dispatching import turn_until
from tests.reported import Page
from tests.serving import spec
from trainer.common.logs import make_formatter

pytestmark = pytest.mark.timeout(120)

Sessions = sessionmaker[Session]
SECRET_OF_A_FILE = "root:x:0:0"
PREFIXES = ("/", "/v1/studies/", "/v1/studies/first/trials/", "/v1/search-spaces/", "/static/", "/dashboard/", "/api/")
RANGE = {"low": 1e-5, "high": 1e-3, "log": True}
#: all that UTF-8 can carry
WORDS = {**hostile.TEXTS, **{name: text for name, text in hostile.UNUSABLE.items() if name != "half a surrogate pair"}}
NUMBERED = (
    "budget.max_trials", "budget.max_gpu_hours", "budget.max_examples", "search.seed", "data.max_length",
    "space.learning_rate.high", "baseline.learning_rate", "enqueue.0.learning_rate",
)  # fmt: skip

#: every place of a spec that takes text
PLACES: dict[str, Callable[[str], dict[str, Any]]] = {
    "name": lambda text: {"metadata": {"name": text}},
    "label": lambda text: {"metadata": {"name": "x", "labels": {"team": text}}},
    "name of a label": lambda text: {"metadata": {"name": "x", "labels": {text: "a"}}},
    "key": lambda text: {text: 1},
    "api version": lambda text: {"api_version": text},
    "preset": lambda text: {"preset": text},
    "model": lambda text: {"model": {"path": text}},
    "dtype": lambda text: {"model": {"path": "model", "dtype": text}},
    "rows": lambda text: {"data": {"train": text}},
    "test rows": lambda text: {"data": {"train": "train.jsonl", "test": text}},
    "format": lambda text: {"data": {"train": "train.jsonl", "format": text}},
    "parameter": lambda text: {"space": {"learning_rate": RANGE, text: 1}},
    "choice": lambda text: {"space": {"learning_rate": RANGE, "target_modules": {"choices": [text, "mlp"]}}},
    "constant": lambda text: {"space": {"learning_rate": RANGE, "target_modules": text}},
    "expression": lambda text: {"space": {"learning_rate": RANGE, "lora_r": {"expr": text}}},
    "condition": lambda text: {"space": {"learning_rate": RANGE, "lora_r": {"choices": [4], "when": {text: [1]}}}},
    "constraint": lambda text: {"constraints": [text]},
    "baseline": lambda text: {"baseline": {text: 1}},
    "point": lambda text: {"enqueue": [{"lora_r": text}]},
    "parameter of a point": lambda text: {"enqueue": [{text: 4}]},
    "strategy": lambda text: {"search": {"strategy": text}},
    "earlier study": lambda text: {"search": {"warm_start": [text]}},
    "deadline": lambda text: {"budget": {"deadline": text}},
    "data check": lambda text: {"data_checks": {text: "warn"}},
    "training": lambda text: {"training": {"optimizer": text}},
}


def sane(answer: Any, what: str) -> None:
    """No server error; a refusal has its code and sentence, and no file of the machine is in it."""
    assert answer.status_code < 500, f"{what}: {answer.text}"
    assert SECRET_OF_A_FILE not in answer.text, what
    if answer.status_code >= 400:
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert problem["code"] not in ("", "internal")
        assert problem["detail"].endswith((".", "?")), f"{what}: {problem['detail']}"


def test_text_in_a_spec(client: TestClient) -> None:
    for (place, written), text in product(PLACES.items(), WORDS.values()):
        sane(client.post("/v1/studies:validate", json=spec(**written(text))), f"{place}: {text}")


def test_text_that_cannot_be_kept_is_refused(client: TestClient) -> None:
    for (place, written), text in product(PLACES.items(), hostile.UNUSABLE.values()):
        answer = client.post("/v1/studies", content=json.dumps(spec(**written(text))))
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), f"{place}: {text!r}"


def test_numbers(client: TestClient) -> None:
    for place, number in product(NUMBERED, hostile.NUMBERS):
        body = spec(enqueue=[{}])
        *path, last = place.split(".")
        inner: Any = body
        for step in path:
            inner = inner[int(step) if step.isdigit() else step]
        inner[last] = "@"
        sane(
            client.post("/v1/studies:validate", content=json.dumps(body).replace('"@"', number)),
            f"{place}: {number[:20]}",
        )


def test_paths_of_files(client: TestClient) -> None:
    for path, place in product(hostile.PATHS, ("model", "rows", "test rows")):
        answer = client.post("/v1/studies:validate", json=spec(**PLACES[place](path)))
        sane(answer, path)
        assert answer.json()["code"] == "invalid_spec"
        sane(client.post("/v1/studies:suggest", json={"model": path, "data": path}), path)


def test_paths_of_the_api(client: TestClient) -> None:
    for path, prefix in product([*hostile.PATHS, *WORDS.values()], PREFIXES):
        for written in (quote(path, safe=""), quote(quote(path, safe=""), safe="")):
            answer = client.get(f"{prefix}{written}")
            sane(answer, f"{prefix}{written}")
            assert answer.status_code >= 400, f"{prefix}{written}"


@pytest.mark.parametrize(
    "body",
    [
        hostile.nested("[", "]"),
        hostile.nested('{"a":', "}"),
        '{"metadata": ' + hostile.nested("[", "]") + "}",
        '{"metadata": {"name": "' + "x" * 900_000 + '"}}',
        '{"metadata": {"name": "' + "x" * 10_000_000 + '"}}',
        '{"enqueue": [' + ",".join(["{}"] * 200_000) + "]}",
        "{" + ",".join(f'"k{number}": 1' for number in range(50_000)) + "}",
        '{"a": 1, "a": ' + "2" * 4000 + "}",
    ],
    ids=["lists", "objects", "deep", "long", "ten megabytes", "many points", "many keys", "twice"],
)
def test_bodies_that_are_too_much(client: TestClient, body: str) -> None:
    for path in ("/v1/studies", "/v1/studies:validate", "/v1/studies:suggest", "/v1/promotions"):
        answer = client.post(path, content=body)
        sane(answer, path)
        assert answer.status_code in (400, 413, 422)
        assert len(answer.content) < 200_000


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/keys/1:rotate", {"overlap_seconds": False}),
        ("POST", "/v1/keys", {"label": "x", "scopes": ["admin"], "expires_in_seconds": "600"}),
        ("PUT", "/v1/projects/default/quota", {"studies": True}),
        ("PUT", "/v1/projects/default/quota", {"gpu_hours_month": "1"}),
        ("POST", "/v1/promotions/bot/1/deliveries", {"retrain": 0}),
        ("POST", "/v1/promotions/bot/1/deliveries", {"merge": "yes"}),
    ],
)
def test_values_of_another_kind_are_not_taken_for_ours(
    client: TestClient, method: str, path: str, body: dict[str, Any]
) -> None:
    answer = client.request(method, path, json=body, headers={"If-Match": "*"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_spec"), answer.text


def test_a_key_has_no_action_behind_its_address(client: TestClient) -> None:
    assert client.delete("/v1/keys/1:rotate").status_code == 405
    assert client.options("/v1/keys/1:rotate").headers["allow"] == "POST"


def test_times_are_written_out(client: TestClient) -> None:
    for since in ("0.5", "-1", "1900000000", "1e3"):
        assert client.get("/v1/audit", params={"since": since}).status_code == 400, since
    assert client.get("/v1/audit", params={"since": "2026-01-01T00:00:00Z"}).status_code == 200


def test_text_in_addresses_of_changes(client: TestClient) -> None:
    """What was asked for is in the audit log whatever it was called, in one line."""
    made = ("/v1/studies/{}:pause", "/v1/studies/{}:clone", "/v1/promotions/{}/1:approve", "/v1/workers/{}:drain")
    for text, path in product(WORDS.values(), made):
        answer = client.post(path.format(quote(text, safe="")), json={"name": "x"})
        sane(answer, f"{path}: {text}")
        assert answer.status_code >= 400
    rows = client.get("/v1/audit", params={"page_size": 500}).json()["items"]
    assert len(rows) > len(WORDS)
    assert not {"Cc", "Cf", "Zl", "Zp"} & {category(character) for row in rows for character in row["object"]}


def test_text_in_headers(client: TestClient) -> None:
    client.post("/v1/studies", json=spec())

    def send(method: str, path: str, body: Any, name: bytes, text: str) -> None:
        headers = [(name, text.encode()), *client.headers.raw]
        answer = client.request(method, path, content=json.dumps(body), headers=headers)
        sane(answer, f"{name!r}: {text[:80]}")
        assert "set-cookie" not in answer.headers

    for text in [*WORDS.values(), "x" * 60_000]:
        send("POST", "/v1/studies", spec(), b"Idempotency-Key", text)
        send("PATCH", "/v1/studies/first", {"budget": {"max_trials": 7}}, b"If-Match", text)
        send("GET", "/v1/promotions/none/latest/export", None, b"If-None-Match", text)
        send("GET", "/v1/studies/none/events", None, b"Last-Event-ID", text)
        send("GET", "/v1/studies/first/data-check", None, b"Accept", text)
        send("GET", "/v1/studies", None, b"X-Request-ID", text)


def test_text_as_credentials(anonymous: TestClient) -> None:
    for text in WORDS.values():
        raw = text.encode()
        for header in (
            (b"Authorization", b"Bearer " + raw),
            (b"Authorization", raw),
            (b"Cookie", b"hpo_session=" + raw),
        ):
            assert anonymous.get("/v1/studies", headers=[header]).json()["code"] == "unauthenticated"


def test_text_in_queries(client: TestClient) -> None:
    client.post("/v1/studies", json=spec())
    for text in [*WORDS.values(), "x" * 60_000]:
        for path in ("/v1/studies", "/v1/promotions", "/v1/workers", "/v1/events", "/v1/studies/first/trials"):
            answer = client.get(path, params={"page_token": text})
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
        for path in ("/v1/studies/first/best/export", "/v1/studies/first/report", "/v1/studies/first/data-check"):
            sane(client.get(path, params={"format": text}), text[:80])
        sane(client.post("/v1/workers/none:drain", params={"reason": text}), text[:80])


@pytest.fixture
def kept(client: TestClient, sessions: Sessions, root: Path) -> TestClient:
    """A study that has run to its end, with every text as a label, and a promotion with all of them as its note."""
    labels = dict(zip(hostile.TEXTS.values(), reversed(hostile.TEXTS.values()), strict=True))
    search = {"strategy": "asha", "sampler": "random", "deterministic": True, "seed": 3}
    body = spec(search=search, budget={"max_trials": 3}, metadata={"name": "first", "labels": labels})
    assert client.post("/v1/studies", json=body).status_code == 201
    assert client.get("/v1/studies/first").json()["labels"] == labels
    dispatcher, _ = serving.make_dispatcher(sessions)
    turn_until(dispatcher, lambda: client.get("/v1/studies/first").json()["state"] == "completed")
    for trial in client.get("/v1/studies/first/trials").json()["items"]:
        serving.keep_snapshot(root, sessions, trial["number"])
    note = "".join(hostile.TEXTS.values())[:2000]
    promotion = client.post("/v1/promotions", json={"study": "first", "name": "bot", "note": note})
    assert promotion.status_code == 201
    assert promotion.json()["note"] == note
    return client


def test_what_is_kept_is_shown_as_text(kept: TestClient) -> None:
    for path in ("/", "/v1/studies/first/report", "/studies/first", "/promotions", "/promotions/bot/1"):
        answer = kept.get(path, headers={"Accept": "text/html"})
        assert answer.status_code == 200, f"{path}: {answer.status_code}"
        page = Page(answer.text)
        assert not [attribute for attribute, _ in page.attributes if attribute.startswith("on")]
        assert not {"img", "iframe", "object", "embed"} & set(page.elements)
        sources = [value for name, value in page.attributes if name == "src"]
        assert page.elements.count("script") == len(sources)
        assert all(source.startswith("/") for source in sources)
    report = kept.get("/v1/studies/first/report", headers={"Accept": "text/markdown"}).text
    parsed = MarkdownIt("commonmark", {"html": True}).enable("table").parse(report)
    kinds = {token.type for block in parsed for token in (block, *(block.children or ()))}
    assert not {"html_block", "html_inline", "link_open", "image"} & kinds


def test_what_is_kept_does_no_harm_in_exports(kept: TestClient) -> None:
    for format in FORMATS:
        answer = kept.get("/v1/promotions/bot/latest/export", params={"format": format})
        assert answer.status_code == 200
        assert "pwned" not in answer.text
        assert "alert(" not in answer.text
        if format != "env":
            assert all(isinstance(document, dict) for document in yaml.safe_load_all(answer.text))


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_request_writes_one_line_of_log(client: TestClient, form: Any) -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(make_formatter(form))
    logger = logging.getLogger("hpo_service.api.middleware.request_log")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        for text in WORDS.values():
            client.get(f"/v1/studies/{quote(text, safe='')}", headers=[(b"X-Request-ID", text.encode())])
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    lines = written.getvalue().splitlines()
    assert len(lines) == len(WORDS)
    assert not {"Cc", "Cf", "Zl", "Zp"} & {category(character) for line in lines for character in line}
