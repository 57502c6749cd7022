"""Checks of data over HTTP: asked for by validation and by studies, kept by fingerprint, shown as JSON and Markdown."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.executors.fake import FakeExecutor, passed
from hpo_service.storage.tables import Intent, Job
from tests import serving
from tests.dispatching import turn_until
from tests.serving import spec
from trainer.spec import Job as Work
from trainer.spec import JobResult
from trainer.spec.quality import Finding, QualityReport

Sessions = sessionmaker[Session]


def validated(client: TestClient, **changes: Any) -> Any:
    answer = client.post("/v1/studies:validate", json=spec(**changes))
    assert answer.status_code == 200, answer.text
    return answer.json()["data_check"]


def work_off(client: TestClient, sessions: Sessions, job: int) -> FakeExecutor:
    dispatcher, fake = serving.make_dispatcher(sessions)
    fake.answer = warned
    turn_until(dispatcher, lambda: client.get(f"/v1/data-checks/{job}").json()["state"] != "pending")
    dispatcher._drain()
    return fake


def warned(work: Work) -> JobResult:
    found = Finding(check="near_duplicates", verdict="warn", rows=3, lines=("train.jsonl:7",), message="3 | rows")
    report = QualityReport(verdict="warn", findings=(found,), train_rows=200, eval_rows=60, train_sha256="0" * 64)
    return passed(work).model_copy(update={"report": report.model_dump(mode="json")})


def test_validation_answers_at_once_and_once_for_all(client: TestClient, sessions: Sessions) -> None:
    first = validated(client)
    assert (first["state"], first["report"]) == ("pending", None)
    assert validated(client, name="other") == first
    assert client.get(f"/v1/data-checks/{first['job']}").json() == first
    with sessions() as session:
        assert session.scalars(select(Intent.kind)).all() == ["check_data"]
        assert session.scalars(select(Intent.study_id)).all() == [None]
    work_off(client, sessions, first["job"])
    known = validated(client)
    assert (known["state"], known["job"]) == ("warned", first["job"])
    assert known["report"]["findings"][0]["check"] == "near_duplicates"
    assert known["seconds"] > 0


def test_a_study_after_validation_needs_no_second_check(client: TestClient, sessions: Sessions) -> None:
    job = validated(client)["job"]
    work_off(client, sessions, job)
    study = client.post("/v1/studies", json=spec()).json()
    assert study["message"] == ""
    assert client.get("/v1/studies/first/data-check").json()["job"] == job
    dispatcher, fake = serving.make_dispatcher(sessions)
    turn_until(dispatcher, lambda: client.get("/v1/studies/first").json()["state"] == "completed")
    assert fake.jobs == []


def test_a_study_that_waits_says_so(client: TestClient, sessions: Sessions) -> None:
    study = client.post("/v1/studies", json=spec()).json()
    job = client.get("/v1/studies/first/data-check").json()["job"]
    assert study["message"] == f"waits for the check of its data (job {job})"
    assert validated(client, name="other")["job"] == job
    dispatcher, fake = serving.make_dispatcher(sessions)
    fake.hold_jobs = True
    turn_until(dispatcher, lambda: bool(fake.jobs))
    waiting = client.get("/v1/studies/first").json()
    assert (waiting["state"], waiting["message"], waiting["trials"]["waiting"]) == ("queued", study["message"], 1)
    fake.hold_jobs = False
    turn_until(dispatcher, lambda: client.get("/v1/studies/first").json()["state"] == "completed")


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"train": "train.jsonl", "eval": "eval.jsonl", "max_length": 64}},
        {"data": {"train": "eval.jsonl"}},
        {"data_checks": {"near_duplicates": {"fail": 0.9}}},
    ],
)
def test_what_a_report_depends_on(client: TestClient, changes: dict[str, Any]) -> None:
    assert validated(client)["job"] != validated(client, **changes)["job"]


@pytest.mark.parametrize("name", ["train.jsonl", "eval.jsonl", "model/tokenizer.json"])
def test_a_changed_file_is_checked_again(client: TestClient, root: Path, name: str) -> None:
    (root / "model" / "tokenizer.json").write_text("{}")
    before = validated(client)["job"]
    assert validated(client, search={"seed": 4})["job"] == before
    os.utime(root / name, ns=(1, 1))
    assert validated(client)["job"] != before


def test_changed_test_rows_are_checked_again(client: TestClient, root: Path) -> None:
    shutil.copy(root / "eval.jsonl", root / "test.jsonl")
    data = {**spec()["data"], "test": "test.jsonl"}
    before = validated(client, data=data)["job"]
    os.utime(root / "test.jsonl", ns=(1, 1))
    assert validated(client, data=data)["job"] != before


def test_changed_weights_are_no_reason(client: TestClient, root: Path) -> None:
    before = validated(client)["job"]
    os.utime(root / "model" / "model.safetensors", ns=(1, 1))
    assert validated(client)["job"] == before


def test_without_checks_nothing_is_asked_for(client: TestClient, sessions: Sessions) -> None:
    off: dict[str, Any] = {"data_checks": {"enabled": False}}
    assert validated(client, **off)["state"] == "off"
    client.post("/v1/studies", json=spec(**off))
    assert client.get("/v1/studies/first/data-check").json()["state"] == "off"
    dispatcher, fake = serving.make_dispatcher(sessions)
    turn_until(dispatcher, lambda: client.get("/v1/studies/first").json()["state"] == "completed")
    assert fake.jobs == []
    with sessions() as session:
        assert session.scalars(select(Job)).all() == []


def test_the_report_as_markdown(client: TestClient, sessions: Sessions) -> None:
    client.post("/v1/studies", json=spec())
    job = client.get("/v1/studies/first/data-check").json()["job"]
    pending = client.get("/v1/studies/first/data-check", params={"format": "md"})
    assert pending.headers["content-type"].startswith("text/markdown")
    assert "pending" in pending.text
    work_off(client, sessions, job)
    for path in ("/v1/studies/first/data-check", f"/v1/data-checks/{job}"):
        by_query = client.get(path, params={"format": "md"})
        by_header = client.get(path, headers={"Accept": "text/markdown"})
        assert by_query.text == by_header.text
        assert "near_duplicates" in by_query.text
        assert "train.jsonl:7" in by_query.text
        assert client.get(path).json()["state"] == "warned"
        assert client.get(path, params={"format": "pdf"}).status_code == 400


def test_checks_of_others_and_of_nobody(client: TestClient, sessions: Sessions) -> None:
    job = validated(client)["job"]
    other = serving.bearer(serving.make_key(sessions, serving.make_project(sessions, "other")))
    assert client.get(f"/v1/data-checks/{job}", headers=other).status_code == 404
    theirs = client.post("/v1/studies:validate", json=spec(), headers=other).json()["data_check"]["job"]
    assert theirs != job
    assert client.get("/v1/data-checks/999999").status_code == 404
    assert client.get("/v1/studies/none/data-check").status_code == 404
    work_off(client, sessions, job)
    assert client.get(f"/v1/data-checks/{job}", headers=other).status_code == 404
