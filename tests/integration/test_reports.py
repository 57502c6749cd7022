"""A study as one document, over HTTP."""

import math
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.executors.fake import FakeExecutor
from tests import serving
from tests.dispatching import loss_of, make, turn_until
from tests.reported import Page, pictures
from tests.serving import Json, spec
from trainer.spec import Slice

Sessions = sessionmaker[Session]
SEARCH = {"strategy": "freeze_thaw", "deterministic": True, "seed": 3}
REPORT = "/v1/studies/first/report"


def diverging(work: Slice) -> float:
    """High learning rates diverge."""
    return math.nan if work.trial.parameters.learning_rate > 5e-3 else loss_of(work)


def search(client: TestClient, sessions: Sessions, **changes: Any) -> None:
    """Run the study `first` to its end."""
    document = spec(**{"search": SEARCH, "budget": {"max_trials": 14}, **changes})
    assert client.post("/v1/studies", json=document).status_code == 201
    dispatcher, _ = make(sessions, FakeExecutor(diverging, total_examples=serving.ROWS))
    turn_until(dispatcher, lambda: client.get("/v1/studies/first").json()["state"] == "completed", turns=2000)


@pytest.fixture
def ended(client: TestClient, sessions: Sessions) -> TestClient:
    """A client whose study `first` has run to its end."""
    search(client, sessions, enqueue=[{"learning_rate": 9e-3}])
    return client


def trials(client: TestClient) -> list[Json]:
    found: list[Json] = client.get("/v1/studies/first/trials").json()["items"]
    return found


def test_the_page_tells_what_the_api_knows(ended: TestClient) -> None:
    answer = ended.get(REPORT)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    page, study = Page(answer.text), ended.get("/v1/studies/first").json()
    assert f"trial {study['best']['trial_number']}" in page.text
    assert f"{study['best']['loss']:.4f}" in page.text
    assert "diverged" in page.text
    assert "fake-0" in page.text
    assert "script" not in page.elements
    assert len(pictures(answer.text)) == 7
    exported = ended.get("/v1/studies/first/best/export").text.splitlines()
    assert [line for line in exported if "Exported" not in line and "date" not in line and line not in page.text] == []


def test_what_was_saved_is_measured_at_each_trial_own_speed(ended: TestClient, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE hpo.attempts SET train_seconds = examples * 36, data_seconds = 0, devices = 2"))
    stopped = [trial for trial in trials(ended) if trial["state"] == "PRUNED"]
    left = sum(trial["total_examples"] - trial["examples_seen"] for trial in stopped)
    assert left > 0
    words = f"saved {left * 72 / 3600:.3g} GPU-hours: {len(stopped)} trials did not train {left:,} examples"
    assert words in Page(ended.get(REPORT).text).text


@pytest.mark.parametrize(
    ("query", "accept", "kind"),
    [
        ("", "*/*", "text/html"),
        ("", "text/html,application/xhtml+xml,*/*;q=0.8", "text/html"),
        ("", "text/markdown", "text/markdown"),
        ("?format=markdown", "text/html", "text/markdown"),
        ("?format=html", "text/markdown", "text/html"),
    ],
)
def test_the_format_is_asked_for(ended: TestClient, query: str, accept: str, kind: str) -> None:
    answer = ended.get(REPORT + query, headers={"Accept": accept})
    assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
    assert answer.headers["vary"] == "Accept"
    assert answer.text.startswith("# Report on study first" if kind == "text/markdown" else "<!doctype html>")


def test_a_study_that_has_not_begun_has_a_report(client: TestClient) -> None:
    client.post("/v1/studies", json=spec())
    page = Page(client.get(REPORT).text)
    assert "no trial has reached a rung yet" in page.text
    assert "this is how it stood" in page.text
    assert client.get("/v1/studies/second/report").status_code == 404
    assert client.get(f"{REPORT}?format=pdf").status_code == 400


def test_a_range_that_is_too_narrow_comes_with_the_command_that_widens_it(
    client: TestClient, sessions: Sessions
) -> None:
    space = {"learning_rate": {"low": 1e-5, "high": 3e-4, "log": True}, "lora_r": {"choices": [4, 8, 16]}}
    search(client, sessions, space=space, budget={"max_trials": 25})
    (edge,) = client.get("/v1/studies/first").json()["edges"]
    assert f"Widen the range with {edge['command']}" in Page(client.get(REPORT).text).text


def test_a_confirmed_winner_is_told_with_its_noise(client: TestClient, sessions: Sessions) -> None:
    search(client, sessions, confirm={"seeds": 2, "share": 1.0}, budget={"max_trials": 6, "max_examples": 3000})
    confirmation = client.get("/v1/studies/first").json()["confirmation"]
    text_of = Page(client.get(REPORT).text).text
    assert confirmation["sentence"] in text_of
    gap = next(one for one in confirmation["differences"] if one["other_trial_number"] == 0)
    assert f"{gap['mean']:+.4f} ± {gap['half_width']:.4f}" in text_of
