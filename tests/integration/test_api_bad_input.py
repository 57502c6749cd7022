"""Every way to ask for something impossible is told at once, by pointer, and leaves nothing behind."""

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, create_engine, func, select
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.storage.tables import Intent, Study
from tests import serving
from tests.serving import spec

Sessions = sessionmaker[Session]
PATHS = ["/v1/studies", "/v1/studies:validate"]


def space(**forms: Any) -> dict[str, Any]:
    return {"space": {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}, **forms}, "baseline": None}


CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown key": ({"bugdet": {"max_trials": 3}}, "/bugdet", "'budget'"),
    "unknown key inside": ({"budget": {"max_trails": 3}}, "/budget/max_trails", "'max_trials'"),
    "another trainer's name": (
        space(per_device_train_batch_size=4),
        "/space/per_device_train_batch_size",
        "here it is space.effective_batch",
    ),
    "another tool's form": (space(lora_r={"values": [8, 16]}), "/space/lora_r/values", "{choices: [8, 16]}"),
    "another tool's section": ({"parameters": {"lr": {"min": 0}}}, "/parameters", "'parameters' is W&B's name"),
    "a key of another section": ({"max_trials": 3}, "/max_trials", "write budget.max_trials"),
    "past deadline": (
        {"budget": {"deadline": "2020-01-01T00:00:00Z"}, "search": {}},
        "/budget/deadline",
        "which is past",
    ),
    "name on the hub": ({"model": {"path": "meta-llama/Llama-3.1-8B"}}, "/model/path", "Run hf download"),
    "unknown parameter": (space(learning_rte=1), "/space/learning_rte", "'learning_rate'"),
    "no trials": ({"budget": {"max_trials": 0}}, "/budget/max_trials", "greater than or equal to 1"),
    "contradictory bounds": (space(lora_dropout={"low": 0.5, "high": 0.1}), "/space/lora_dropout/low", "swap"),
    "log of zero": (space(weight_decay={"low": 0, "high": 0.1, "log": True}), "/space/weight_decay/low", "low > 0"),
    "cycle": (space(lora_r={"expr": "lora_alpha"}, lora_alpha={"expr": "lora_r"}), "/space/lora_alpha", "circle"),
    "bad name": ({"metadata": {"name": "a/b"}}, "/metadata/name", "pattern"),
    "unknown preset": ({"preset": "qick"}, "/preset", "'quick'"),
    "unknown strategy": ({"search": {"strategy": "asah"}}, "/search/strategy", "'asha'"),
    "missing model": ({"model": None}, "/model", "required"),
    "unknown model": ({"model": {"path": "nowhere"}}, "/model/path", "does not exist"),
    "model is a file": ({"model": {"path": "train.jsonl"}}, "/model/path", "not a folder"),
    "no such rows": ({"data": {"train": "none.jsonl"}}, "/data/train", "does not exist"),
    "absolute elsewhere": ({"data": {"train": "/etc/passwd"}}, "/data/train", "outside"),
    "traversal": ({"data": {"train": "../../../../etc/passwd"}}, "/data/train", "outside"),
    "rows are a folder": ({"data": {"train": "model"}}, "/data/train", "holds no shards"),
    "enqueued point outside": ({"enqueue": [{"lora_r": 5}]}, "/enqueue/0/lora_r", "4, 8, 16"),
    "more points than trials": ({"budget": {"max_trials": 1}, "enqueue": [{"lora_r": 4}]}, "/budget/max_trials", "2"),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("case", CASES)
def test_a_wrong_spec(client: TestClient, sessions: Sessions, case: str, path: str) -> None:
    changes, pointer, hint = CASES[case]
    answer = client.post(path, json=spec(**changes))
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "invalid_spec"
    named = {error["pointer"]: error["detail"] for error in problem["errors"]}
    assert pointer in named
    assert hint in named[pointer]
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(Study)) == 0
        assert session.scalar(select(func.count()).select_from(Intent)) == 0


def test_a_malformed_row_is_told_with_its_line(client: TestClient, root: Path) -> None:
    lines = (root / "train.jsonl").read_text().splitlines()
    lines[41] = '{"instruction": "x", "output": '
    (root / "train.jsonl").write_text("\n".join(lines))
    error = client.post("/v1/studies", json=spec()).json()["errors"][0]
    assert error["pointer"] == "/data/train"
    assert "line 42" in error["detail"]


def test_model_and_data_are_told_together(client: TestClient, root: Path) -> None:
    (root / "eval.jsonl").write_text("\n\n")
    (root / "model" / "config.json").write_text('{"auto_map": {"AutoModel": "evil.Model"}}')
    errors = client.post("/v1/studies", json=spec()).json()["errors"]
    assert [error["pointer"] for error in errors] == ["/model/path", "/data/eval"]
    assert "auto_map" in errors[0]["detail"]
    assert "no rows" in errors[1]["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": "\\u0000"}',
        b'{"a": "\\ud800"}',
        b'{"a": ' + b"[" * 500 + b"]" * 500 + b"}",
        b"[" * 100_000,
        b'{"a": ' + b"9" * 10_000 + b"}",
    ],
)
def test_a_body_that_is_no_usable_json(client: TestClient, body: bytes) -> None:
    for path in PATHS:
        answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


def test_a_large_body_is_refused(client: TestClient) -> None:
    body = json.dumps(spec(note="x" * 10_000_000)).encode()
    answer = client.post("/v1/studies", content=body)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert answer.headers["content-type"] == "application/problem+json"

    def pieces() -> Any:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    streamed = client.post("/v1/studies", content=pieces())
    assert (streamed.status_code, streamed.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/v1/studies/none", 404, "not_found"),
        ("GET", "/v1/studies/none/trials/0", 404, "not_found"),
        ("GET", "/v1/studies/none/events", 404, "not_found"),
        ("GET", "/v1/search-spaces/none", 404, "not_found"),
        ("POST", "/v1/studies/none:pause", 404, "not_found"),
        ("POST", "/v1/studies/none:explode", 404, "not_found"),
        ("PUT", "/v1/studies", 405, "method_not_allowed"),
        ("GET", "/v1/studies?page_size=0", 400, "invalid_request"),
        ("GET", "/v1/studies/none/trials/x", 400, "invalid_request"),
        ("GET", "/v1/studies/%00", 400, "invalid_request"),
    ],
)
def test_a_wrong_address(client: TestClient, method: str, path: str, status: int, code: str) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


def test_values_of_the_request_are_not_repeated_in_unexpected_places(client: TestClient) -> None:
    answer = client.get("/v1/studies", params={"page_size": "secret-value"})
    assert "secret-value" not in answer.text


def test_a_database_that_does_not_answer(root: Path) -> None:
    engine: Engine = create_engine("postgresql+psycopg2://hpo:topsecret@127.0.0.1:1/hpo")
    client = serving.serve(engine, serving.settings(root))
    assert client.get("/healthz").status_code == 200
    for path, headers in (("/readyz", {}), ("/v1/studies", serving.bearer("hpo_key_1_" + "a" * 43))):
        answer = client.get(path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert answer.headers["retry-after"]
        assert "topsecret" not in answer.text


def test_problems_of_every_step_come_in_one_answer(client: TestClient) -> None:
    wrong = spec(
        model={"path": "nowhere"},
        data={"train": "none.jsonl"},
        **space(lora_dropout={"low": 0.5, "high": 0.1}),
        budget={"max_trials": 0},
        search={"strategy": "asah"},
    )
    for path in PATHS:
        problem = client.post(path, json=wrong).json()
        assert [error["pointer"] for error in problem["errors"]] == [
            "/search/strategy",
            "/budget/max_trials",
            "/model/path",
            "/data/train",
            "/space/lora_dropout/low",
        ]
        assert problem["detail"].startswith("the study spec has 5 problems: search.strategy is 'asah'")
