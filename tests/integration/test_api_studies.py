"""Studies over HTTP on a real PostgreSQL; what the dispatcher must do is done by a real one with a fake executor."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from ruamel.yaml import YAML
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.storage.queries import workers
from hpo_service.storage.tables import Intent, Study
from tests import serving
from tests.dispatching import turn_until
from tests.serving import spec
from trainer.spec import TrialFile

Sessions = sessionmaker[Session]


def state(client: TestClient, name: str = "first") -> str:
    return str(client.get(f"/v1/studies/{name}").json()["state"])


def turn(sessions: Sessions, client: TestClient, *states: str, name: str = "first") -> None:
    dispatcher, _ = serving.make_dispatcher(sessions)
    turn_until(dispatcher, lambda: state(client, name) in states)


def set_state(sessions: Sessions, value: str) -> None:
    """As if the dispatcher had carried out everything and the study had got there."""
    with sessions.begin() as session:
        session.execute(text("UPDATE hpo.intents SET done_at = now()"))
        session.execute(text("UPDATE hpo.studies SET state = :state"), {"state": value})


def test_create_answers_the_study_and_its_place(client: TestClient, sessions: Sessions) -> None:
    answer = client.post("/v1/studies", json=spec())
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == "/v1/studies/first"
    study = answer.json()
    assert (study["name"], study["state"], study["pending"]) == ("first", "queued", ["create"])
    assert study["spec"] == spec()
    assert study["resolved"]["train_rows"] == serving.ROWS
    assert study["best"] is None
    assert study["dashboard"] is None
    warnings = study.pop("warnings")
    assert client.get("/v1/studies/first").json() == study
    with sessions() as session:
        assert session.scalars(select(Intent.kind)).all() == ["check_data", "create"]
    assert warnings == client.post("/v1/studies:validate", json=spec(name="second")).json()["warnings"]


def register_worker(sessions: Sessions) -> None:
    """One without CUDA."""
    with sessions.begin() as session:
        workers.register(
            session,
            executor="ray",
            name="w",
            node="n",
            places=["n/0"],
            device="EPYC, 2 threads",
            auto_dtype="float32",
            software={"cuda": "none"},
            epoch=1,
        )


def test_every_project_is_told_what_the_workers_cannot_do(client: TestClient, sessions: Sessions) -> None:
    register_worker(sessions)
    client.headers.update(serving.bearer(serving.make_key(sessions, serving.make_project(sessions, "team-b"))))
    refused = client.post("/v1/studies", json=spec(model={"path": "model", "quantization": "nf4"}))
    assert refused.status_code == 422
    assert "CUDA" in refused.json()["detail"]


def test_what_is_probably_not_meant_is_said_by_post_as_well(client: TestClient, sessions: Sessions) -> None:
    register_worker(sessions)
    study = client.post("/v1/studies", json=spec(resources={"gpus_per_trial": 2})).json()
    waits = (
        "resources.gpus_per_trial is 2, and the one worker occupied 1 device(s) in all when this was checked: it waits "
        "until there are more."
    )
    assert study["warnings"][-1] == waits
    cloned = client.post("/v1/studies/first:clone", json={"name": "second"}).json()
    assert cloned["warnings"][-1] == waits
    model = {"path": "model", "quantization": "nf4"}
    refused = client.post("/v1/studies:validate", json=spec(name="third", model=model)).json()
    assert [error["pointer"] for error in refused["errors"]] == ["/model/quantization"]
    assert "which no worker has (EPYC, 2 threads)" in refused["detail"]


def test_a_study_from_post_to_best(client: TestClient, sessions: Sessions) -> None:
    client.post("/v1/studies", json=spec())
    turn(sessions, client, "completed")
    study = client.get("/v1/studies/first").json()
    counts = study["trials"]
    assert sum(counts.values()) == study["spent"]["trials"] == 6
    assert counts["complete"] >= 1
    assert study["spent"]["examples"] > 0
    assert study["savings"]["examples"] > 0
    assert 0 < study["savings"]["share"] < 1
    assert study["finished_at"] is not None
    assert study["dashboard"].startswith("/dashboard/studies/")
    best = client.get("/v1/studies/first/best").json()
    assert best == study["best"]
    assert best["provisional"] is False
    assert best["improvement"]["baseline_trial"] == 0
    exported = client.get("/v1/studies/first/best/export", params={"format": "yaml"})
    assert exported.headers["content-type"].startswith("application/yaml")
    document = TrialFile.model_validate(YAML(typ="safe").load(exported.text))
    assert document.parameters.model_dump() == best["parameters"]
    unknown = client.get("/v1/studies/first/best/export", params={"format": "docx"})
    assert (unknown.status_code, unknown.json()["code"]) == (400, "invalid_request")


def test_list_is_newest_first_in_pages(client: TestClient) -> None:
    for number in range(5):
        assert client.post("/v1/studies", json=spec(f"s-{number}.x_y")).status_code == 201
    first = client.get("/v1/studies", params={"page_size": 3}).json()
    second = client.get("/v1/studies", params={"page_size": 3, "page_token": first["next_page_token"]}).json()
    names = [study["name"] for study in first["items"] + second["items"]]
    assert names == [f"s-{number}.x_y" for number in reversed(range(5))]
    assert second["next_page_token"] is None
    assert "spec" not in first["items"][0]
    assert client.get("/v1/studies", params={"page_token": "x"}).status_code == 400


def test_a_name_is_taken_once(client: TestClient) -> None:
    assert client.post("/v1/studies", json=spec()).status_code == 201
    again = client.post("/v1/studies", json=spec())
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert "first" in again.json()["detail"]


def test_an_idempotency_key_makes_one_study(client: TestClient, sessions: Sessions) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first = client.post("/v1/studies", json=spec(), headers=headers)
    reordered = dict(reversed(spec().items()))
    second = client.post("/v1/studies", json=reordered, headers=headers)
    assert first.status_code == second.status_code == 201
    assert first.json() == second.json()
    assert second.headers["location"] == "/v1/studies/first"
    other = client.post("/v1/studies", json=spec("other"), headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    malformed = client.post("/v1/studies", json=spec("other"), headers={"Idempotency-Key": "a b"})
    assert malformed.status_code == 400
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(Study)) == 1


def test_an_idempotency_key_answers_after_the_files_are_gone(client: TestClient, root: Path) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first = client.post("/v1/studies", json=spec(), headers=headers)
    (root / "train.jsonl").unlink()
    assert client.post("/v1/studies", json=spec(), headers=headers).json() == first.json()


def test_equal_requests_at_the_same_time_make_one_study(client: TestClient, sessions: Sessions) -> None:
    def post(_: int) -> tuple[int, str]:
        answer = client.post("/v1/studies", json=spec(), headers={"Idempotency-Key": "same"})
        return answer.status_code, answer.text

    with ThreadPoolExecutor(6) as pool:
        answers = set(pool.map(post, range(6)))
    assert len(answers) == 1
    assert answers.pop()[0] == 201
    with sessions() as session:
        assert session.scalars(select(Intent.kind)).all() == ["check_data", "create"]


def test_equal_names_at_the_same_time_make_one_study(client: TestClient) -> None:
    with ThreadPoolExecutor(6) as pool:
        codes = sorted(pool.map(lambda _: client.post("/v1/studies", json=spec()).status_code, range(6)))
    assert codes == [201, 409, 409, 409, 409, 409]


def test_validate_tells_what_a_study_would_be(client: TestClient, sessions: Sessions) -> None:
    answer = client.post("/v1/studies:validate", json=spec())
    assert answer.status_code == 200, answer.text
    report = answer.json()
    assert (report["dimensions"], report["trials"], report["train_rows"]) == (2, 6, serving.ROWS)
    assert report["ladder"][-1] == serving.ROWS
    assert 0 < report["expected_examples"] < report["full_examples"]
    assert report["expected_seconds"] is None
    assert report["warnings"]
    assert client.get("/v1/studies").json()["items"] == []
    client.post("/v1/studies", json=spec())
    turn(sessions, client, "completed")
    report = client.post("/v1/studies:validate", json=spec()).json()
    assert report["expected_seconds"] is None or report["expected_seconds"] >= 0
    assert any("exists already" in warning for warning in report["warnings"])


@pytest.mark.parametrize(
    ("start", "verb", "code"),
    [
        ("running", "pause", 202),
        ("running", "stop", 202),
        ("running", "cancel", 202),
        ("running", "resume", 409),
        ("queued", "pause", 202),
        ("queued", "resume", 409),
        ("paused", "resume", 202),
        ("paused", "pause", 409),
        ("stopping", "stop", 409),
        ("stopping", "pause", 409),
        ("stopping", "cancel", 202),
        ("cancelling", "stop", 409),
        ("completed", "pause", 409),
        ("completed", "cancel", 409),
        ("failed", "resume", 409),
    ],
)
def test_steering(client: TestClient, sessions: Sessions, start: str, verb: str, code: int) -> None:
    client.post("/v1/studies", json=spec("a.b-c_d"))
    set_state(sessions, start)
    answer = client.post(f"/v1/studies/a.b-c_d:{verb}")
    assert answer.status_code == code, answer.text
    if code == 202:
        assert answer.json()["pending"] == [verb]
        assert answer.json()["state"] == start
    else:
        assert answer.json()["code"] == "conflict"
        assert "a.b-c_d" in answer.json()["detail"]


def test_steering_counts_with_what_was_asked_before(client: TestClient, sessions: Sessions) -> None:
    client.post("/v1/studies", json=spec())
    set_state(sessions, "running")
    assert client.post("/v1/studies/first:pause").status_code == 202
    assert client.post("/v1/studies/first:pause").status_code == 409
    assert client.post("/v1/studies/first:resume").status_code == 202
    assert client.post("/v1/studies/first:cancel").status_code == 202
    assert client.post("/v1/studies/first:stop").status_code == 409
    assert client.get("/v1/studies/first").json()["pending"] == ["pause", "resume", "cancel"]


def test_a_paused_study_goes_on(client: TestClient, sessions: Sessions) -> None:
    client.post("/v1/studies", json=spec())
    client.post("/v1/studies/first:pause")
    turn(sessions, client, "paused")
    with sessions.begin() as session:
        session.execute(text("DELETE FROM hpo.leases"))
    client.post("/v1/studies/first:resume")
    turn(sessions, client, "completed")


def test_delete_takes_ended_studies_only(client: TestClient, sessions: Sessions) -> None:
    client.post("/v1/studies", json=spec())
    refused = client.delete("/v1/studies/first")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    set_state(sessions, "cancelled")
    assert client.delete("/v1/studies/first").json()["pending"] == ["delete"]
    assert client.delete("/v1/studies/first").status_code == 409


def test_extend_grows_budget_and_ranges(client: TestClient, sessions: Sessions) -> None:
    client.post("/v1/studies", json=spec())
    before = client.get("/v1/studies/first")
    change: dict[str, Any] = {"budget": {"max_trials": 9}, "space": {"learning_rate": {"high": 0.05}}}
    answer = client.patch("/v1/studies/first", json=change, headers={"If-Match": before.headers["etag"]})
    assert answer.status_code == 202, answer.text
    assert answer.headers["etag"] != before.headers["etag"]
    stale = client.patch("/v1/studies/first", json=change, headers={"If-Match": before.headers["etag"]})
    assert (stale.status_code, stale.json()["code"]) == (412, "precondition_failed")
    more = client.patch("/v1/studies/first", json={"space": {"lora_r": {"choices": [4, 8, 16, 32]}}})
    turn(sessions, client, "completed")
    study = client.get("/v1/studies/first")
    assert study.headers["etag"] == more.headers["etag"]
    resolved = study.json()["resolved"]
    assert (resolved["budget"]["max_trials"], resolved["space"]["parameters"]["learning_rate"]["high"]) == (9, 0.05)
    assert resolved["space"]["parameters"]["lora_r"]["values"] == [4, 8, 16, 32]
    assert sum(study.json()["trials"].values()) == 9
    assert client.patch("/v1/studies/first", json=change).status_code == 409


def test_a_budget_may_shrink_to_what_is_begun_and_not_below(client: TestClient, sessions: Sessions) -> None:
    client.post("/v1/studies", json=spec(search={"strategy": "asha"}))
    dispatcher, fake = serving.make_dispatcher(sessions)
    turn_until(dispatcher, lambda: len(fake.submitted) >= 8)
    client.post("/v1/studies/first:pause")
    turn_until(dispatcher, lambda: client.get("/v1/studies/first").json()["state"] == "paused")
    before = client.get("/v1/studies/first").json()
    begun, examples = sum(before["trials"].values()), before["spent"]["examples"]
    too_small = {"max_trials": begun - 1, "max_examples": examples, "deadline": "2026-01-01T00:00:00Z"}
    refused = client.patch("/v1/studies/first", json={"budget": too_small})
    assert refused.status_code == 422
    told = {error["pointer"]: error["detail"] for error in refused.json()["errors"]}
    assert set(told) == {f"/budget/{name}" for name in too_small}
    assert f"fewer than the {begun} trials" in told["/budget/max_trials"]
    assert f"{examples} of {examples} examples are spent" in told["/budget/max_examples"]
    assert all("hpo study stop first" in detail for detail in told.values())
    assert client.get("/v1/studies/first").json()["pending"] == []
    assert client.patch("/v1/studies/first", json={"budget": {"max_trials": begun}}).status_code == 202
    client.post("/v1/studies/first:resume")
    turn_until(dispatcher, lambda: client.get("/v1/studies/first").json()["state"] == "completed")
    assert sum(client.get("/v1/studies/first").json()["trials"].values()) == begun


@pytest.mark.parametrize(
    ("change", "status", "pointer"),
    [
        ({"space": {"learning_rate": {"high": 1e-3}}}, 422, "/space/learning_rate"),
        ({"space": {"lora_r": {"choices": [4, 8]}}}, 422, "/space/lora_r/choices"),
        ({"space": {"lora_q": {"choices": [4, 8]}}}, 422, "/space/lora_q"),
        ({"budget": {"max_trials": 0}}, 422, "/budget/max_trials"),
        ({"budget": {"max_trails": 9}}, 422, "/budget/max_trails"),
        ({"search": {"seed": 1}}, 422, "/search"),
        ({}, 400, None),
    ],
)
def test_extend_refuses(client: TestClient, change: dict[str, Any], status: int, pointer: str | None) -> None:
    client.post("/v1/studies", json=spec())
    answer = client.patch("/v1/studies/first", json=change)
    assert answer.status_code == status, answer.text
    if pointer is not None:
        assert answer.json()["errors"][0]["pointer"] == pointer
    assert client.get("/v1/studies/first").json()["pending"] == ["create"]


def test_clone_starts_from_the_spec_as_posted(client: TestClient) -> None:
    client.post("/v1/studies", json=spec())
    changes = {"budget": {"max_trials": 3}, "baseline": None}
    answer = client.post("/v1/studies/first:clone", json={"name": "second", "changes": changes})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == "/v1/studies/second"
    clone = answer.json()
    assert (clone["name"], clone["max_trials"]) == ("second", 3)
    assert "baseline" not in clone["spec"]
    assert clone["spec"]["space"] == spec()["space"]
    assert client.post("/v1/studies/first:clone", json={"name": "second"}).status_code == 409
    assert client.post("/v1/studies/none:clone", json={"name": "third"}).status_code == 404
    misspelt = client.post("/v1/studies/first:clone", json={"nam": "third"}).json()
    assert {error["pointer"] for error in misspelt["errors"]} == {"/name", "/nam"}


def test_projects_do_not_see_each_other(client: TestClient, anonymous: TestClient, sessions: Sessions) -> None:
    client.post("/v1/studies", json=spec(), headers={"Idempotency-Key": "k"})
    other = serving.bearer(serving.make_key(sessions, serving.make_project(sessions, "other")))
    assert client.get("/v1/studies", headers=other).json()["items"] == []
    for method, path in (
        ("GET", "/v1/studies/first"),
        ("GET", "/v1/studies/first/trials"),
        ("GET", "/v1/studies/first/best"),
        ("GET", "/v1/studies/first/events"),
        ("DELETE", "/v1/studies/first"),
        ("POST", "/v1/studies/first:pause"),
    ):
        assert client.request(method, path, headers=other).status_code == 404, path
    assert client.get("/dashboard", headers=other).status_code == 404
    own = client.post("/v1/studies", json=spec("first"), headers={**other, "Idempotency-Key": "k"})
    assert own.status_code == 201
