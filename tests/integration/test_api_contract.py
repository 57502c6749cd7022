"""The OpenAPI document says what the API does: schemathesis finds no server error and no status that is not in it."""

from pathlib import Path

from fastapi.testclient import TestClient
from sqlalchemy import Engine

from hpo_service.api.middleware.guard import PUBLIC
from tests.fuzzing import fuzz, served


def test_schemathesis_finds_nothing(engine: Engine, root: Path, tmp_path: Path) -> None:
    """A few requests of each operation, right and wrong ones; `tests/full/test_api_fuzz.py` makes many."""
    with served(engine, root) as api:
        report = fuzz(api, tmp_path, "--phases", "fuzzing", "--max-examples", "4", "--seed", "1")
    assert report.failures == ()
    assert report.cases > 4 * report.operations


def test_no_status_is_left_open(client: TestClient) -> None:
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        for method, operation in operations.items():
            statuses = set(operation["responses"])
            assert all(status.isdigit() for status in statuses), f"{method} {path}: {statuses}"
            assert "503" in statuses
            assert path in PUBLIC or {"401", "403"} <= statuses
            assert ("requestBody" in operation) == ({"413", "422"} <= statuses)
            problems = [operation["responses"][status]["content"] for status in statuses if status >= "400"]
            assert all("application/problem+json" in content for content in problems)
