"""Promotions over HTTP: what is promoted, refused, approved, rolled back and pulled."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.auth.principals import Scope, create_key
from hpo_service.dispatcher.snapshots.retention import read_needs, superfluous
from hpo_service.exporters import FORMATS
from hpo_service.storage.queries import promotions
from hpo_service.storage.tables import DEFAULT_PROJECT_ID
from tests import serving
from tests.dispatching import turn_until
from tests.promoted import end_study, promote
from tests.serving import spec
from trainer.snapshots.stores.base import StoredSnapshot
from trainer.spec import TrialFile

Sessions = sessionmaker[Session]
Key = Callable[..., dict[str, str]]


@pytest.fixture
def key(sessions: Sessions) -> Key:
    """Headers of a fresh key."""

    def make(label: str, *scopes: Scope, project: int = DEFAULT_PROJECT_ID) -> dict[str, str]:
        with sessions.begin() as session:
            return serving.bearer(create_key(session, project, label, scopes or tuple(Scope)))

    return make


@pytest.fixture
def ended(client: TestClient, sessions: Sessions, root: Path) -> TestClient:
    """A client whose study `first` has run to its end; its trials have real snapshots."""
    end_study(client, sessions, root)
    return client


def ask_for_approval(sessions: Sessions) -> None:
    with sessions.begin() as session:
        promotions.set_approval(session, DEFAULT_PROJECT_ID, True)


def test_a_promotion_says_what_and_why(ended: TestClient) -> None:
    best = ended.get("/v1/studies/first/best").json()
    study = ended.get("/v1/studies/first").json()
    made = promote(ended, note="for the bot")
    assert (made["name"], made["version"], made["study"], made["trial_number"]) == (
        "bot", 1, "first", best["trial_number"],
    )  # fmt: skip
    assert made["parameters"] == best["parameters"]
    assert (made["losses"]["searched_loss"], made["losses"]["confirmed_seeds"]) == (best["loss"], 0)
    assert made["comparison"]["difference"] == pytest.approx(
        best["improvement"]["loss"] - best["improvement"]["baseline_loss"]
    )
    assert made["comparison"]["half_width"] > 0
    assert "baseline" in made["verdict"]
    assert (made["digests"]["base_model"], made["digests"]["train"]) == ("b", "0" * 64)
    assert made["bill"]["study_seconds"] == study["spent"]["seconds"] >= made["bill"]["trial_seconds"] > 0
    assert made["environment"]["generator"].startswith("hpo-service ")
    assert (made["promoted_by"], made["note"], made["effective"]) == ("test", "for the bot", True)
    assert ended.get("/v1/promotions/bot/1").json() == made == ended.get("/v1/promotions/bot/latest").json()
    assert ended.get("/v1/promotions").json()["items"] == [made]


def test_every_format_can_be_pulled_and_stays_the_same(ended: TestClient) -> None:
    promote(ended)
    path = "/v1/promotions/bot/latest/export"
    first = {format: ended.get(path, params={"format": format}) for format in FORMATS}
    for format, answer in first.items():
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-promotion"] == "bot@1"
        etag = answer.headers["etag"]
        for header in (etag, f"W/{etag}", f'"other", {etag}', "*"):
            again = ended.get(path, params={"format": format}, headers={"If-None-Match": header})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    promote(ended, trial=0)
    for format, answer in first.items():
        headers = {"If-None-Match": answer.headers["etag"]}
        pinned = ended.get("/v1/promotions/bot/1/export", params={"format": format}, headers=headers)
        assert pinned.status_code == 304
        other = ended.get(path, params={"format": format})
        assert other.headers["x-promotion"] == "bot@2"
        now = ended.get(path, params={"format": format}, headers=headers)
        assert now.status_code == (304 if other.content == answer.content else 200)
    changed = [format for format in FORMATS if ended.get(path, params={"format": format}).text != first[format].text]
    assert {"yaml", "json", "env", "trl", "axolotl", "hf"} <= set(changed)


def test_the_values_of_an_export_say_what_they_are_about(ended: TestClient) -> None:
    made = promote(ended)
    answer = ended.get("/v1/promotions/bot/1/values", params={"format": "axolotl"})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    values = {".".join(one["path"]): one for one in found["values"]}
    assert (found["promotion"], found["batch"]["effective"]) == ("bot@1", made["parameters"]["effective_batch"])
    assert values["learning_rate"]["value"] == made["parameters"]["learning_rate"]
    assert [values[name]["group"] for name in ("learning_rate", "base_model", "seed", "datasets")] == [
        "hyperparameters", "model", "seed", "data",
    ]  # fmt: skip
    assert made["verdict"] in found["origin"][1]
    for path in ("promotions/bot/latest", "studies/first/best"):
        assert ended.get(f"/v1/{path}/values", params={"format": "kustomize"}).status_code == 400
        assert ended.get(f"/v1/{path}/values", params={"format": "peft", "strict": True}).status_code == 422
    best = ended.get("/v1/studies/first/best/values", params={"format": "trl"}).json()
    assert (best["promotion"], best["format"]) == (None, "trl")


def test_exports_are_told_the_format_of_the_rows(ended: TestClient) -> None:
    """The study says `auto`; Axolotl was told no type, and others `auto`."""
    promote(ended)
    for path in ("promotions/bot/1", "studies/first/best"):
        told = ended.get(f"/v1/{path}/export", params={"format": "axolotl"})
        assert yaml.safe_load(told.text)["datasets"][0]["type"]["field_output"] == "output"
        assert "format" not in told.headers["x-dropped"]
        assert yaml.safe_load(ended.get(f"/v1/{path}/export").text)["data"]["format"] == "alpaca"


def test_an_export_carries_its_provenance_and_trains(ended: TestClient) -> None:
    made = promote(ended)
    text = ended.get("/v1/promotions/bot/latest/export").text
    document = TrialFile.model_validate(yaml.safe_load(text))
    assert document.parameters.model_dump() == made["parameters"]
    assert document.provenance["promotion"] == "bot@1"
    assert document.provenance["verdict"] == made["verdict"]
    assert document.trial().digest() == made["digests"]["trial"]
    assert f"# Promotion bot@1 by test: {made['verdict']}\n" in text
    strict = ended.get("/v1/promotions/bot/latest/export", params={"format": "peft", "strict": True})
    assert (strict.status_code, strict.json()["code"]) == (422, "not_expressible")
    assert ended.get("/v1/promotions/bot/latest/export", params={"format": "toml"}).status_code == 400


def test_a_snapshot_that_does_not_verify_is_refused_and_the_next_best_is_offered(
    ended: TestClient, sessions: Sessions, root: Path
) -> None:
    best = ended.get("/v1/studies/first/best").json()["trial_number"]
    with sessions() as session:
        folder = root / "home" / "snapshots" / serving.newest_slice(session, best).snapshots[0]["path"]
    (folder / "adapter_model.safetensors").write_bytes(b"Weights" * 1000)
    refused = ended.post("/v1/promotions", json={"study": "first", "name": "bot"})
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert f"trial {best} of study 'first' has no snapshot that verifies" in refused.json()["detail"]
    offered = int(refused.json()["detail"].rsplit("--trial ", 1)[1].rstrip("."))
    assert offered != best
    assert ended.get("/v1/promotions").json()["items"] == []
    assert promote(ended, trial=offered)["trial_number"] == offered


def test_the_baseline_is_named_as_such(ended: TestClient) -> None:
    made = promote(ended, trial=0)
    assert (made["verdict"], made["comparison"]) == ("It is the baseline itself.", None)


def test_what_cannot_be_promoted(ended: TestClient, client: TestClient, sessions: Sessions) -> None:
    pruned = next(
        trial["number"] for trial in ended.get("/v1/studies/first/trials").json()["items"] if trial["state"] == "PRUNED"
    )
    for body, status, words in (
        ({"study": "first", "name": "bot", "trial": pruned}, 409, "was not trained to its end"),
        ({"study": "first", "name": "bot", "trial": 99}, 404, "has no trial 99"),
        ({"study": "none", "name": "bot"}, 404, "no study named"),
        ({"study": "first", "name": "../bot"}, 422, "name"),
        ({"study": "first"}, 422, "name"),
    ):
        answer = ended.post("/v1/promotions", json=body)
        assert answer.status_code == status, answer.text
        assert words in answer.text
    client.post("/v1/studies", json=spec("second"))
    assert client.post("/v1/promotions", json={"study": "second", "name": "bot"}).status_code == 404


def test_the_same_request_is_one_promotion(ended: TestClient) -> None:
    body, headers = {"study": "first", "name": "bot"}, {"Idempotency-Key": "p"}
    first, second = (ended.post("/v1/promotions", json=body, headers=headers).json() for _ in range(2))
    assert first == second
    assert len(ended.get("/v1/promotions").json()["items"]) == 1
    assert promote(ended)["version"] == 2


def test_rows_never_change(ended: TestClient, sessions: Sessions) -> None:
    promote(ended)
    for statement in ("UPDATE hpo.promotions SET note = 'x'", "DELETE FROM hpo.promotions",
                      "TRUNCATE hpo.promotions CASCADE"):  # fmt: skip
        with pytest.raises(DBAPIError, match="never change"), sessions.begin() as session:
            session.execute(text(statement))


def test_it_outlives_its_study(ended: TestClient, sessions: Sessions) -> None:
    made = promote(ended)
    assert ended.delete("/v1/studies/first").status_code == 202
    dispatcher, _ = serving.make_dispatcher(sessions)
    turn_until(dispatcher, lambda: ended.get("/v1/studies/first").status_code == 404)
    assert ended.get("/v1/promotions/bot/latest").json() == made | {"study_deleted": True}
    assert ended.get("/v1/promotions/bot/latest/export").status_code == 200


def test_a_promotion_of_a_deleted_study_does_not_lead_to_another_of_its_name(
    ended: TestClient, sessions: Sessions
) -> None:
    ended.post("/v1/promotions", json={"study": "first", "name": "bot"})
    assert ended.get("/v1/promotions/bot/1").json()["study_deleted"] is False
    assert "/studies/first" in ended.get("/promotions/bot/1").text
    ended.delete("/v1/studies/first")
    dispatcher, _ = serving.make_dispatcher(sessions)
    turn_until(dispatcher, lambda: ended.get("/v1/studies/first").status_code == 404)
    ended.post("/v1/studies", json=serving.spec()).raise_for_status()
    assert ended.get("/v1/promotions/bot/1").json()["study_deleted"] is True
    for page in ("/promotions", "/promotions/bot/1"):
        shown = ended.get(page).text
        assert "first, which was deleted" in shown
        assert "/studies/first" not in shown


def test_its_snapshot_stays_whatever_becomes_of_the_best(ended: TestClient, sessions: Sessions) -> None:
    made = promote(ended, trial=0)
    assert made["trial_number"] != ended.get("/v1/studies/first/best").json()["trial_number"]
    with sessions() as session:
        (needs,) = read_needs(session, 1).values()
        path = serving.newest_slice(session, 0).snapshots[0]["path"]
    assert needs.promoted == {path}
    assert superfluous([StoredSnapshot(path=path, size_bytes=9)], {1: needs}, max_bytes=0) == []


def test_a_second_key_approves(ended: TestClient, sessions: Sessions, key: Key) -> None:
    first = promote(ended)
    ask_for_approval(sessions)
    waiting = promote(ended, trial=0)
    assert (waiting["effective"], waiting["needs_approval"]) == (False, True)
    assert ended.get("/v1/promotions/bot/latest").json() == first
    held = ended.get("/v1/promotions/bot/2/export")
    assert (held.status_code, "waits for approval" in held.json()["detail"]) == (409, True)
    own = ended.post("/v1/promotions/bot/2:approve")
    assert (own.status_code, own.json()["code"]) == (403, "forbidden")
    outsider = ended.post("/v1/promotions/bot/2:approve", headers=key("ci", Scope.PROMOTE))
    assert (outsider.status_code, "no scope 'approve'" in outsider.json()["detail"]) == (403, True)
    approved = ended.post("/v1/promotions/bot/2:approve", headers=key("boss", Scope.APPROVE))
    assert approved.status_code == 200, approved.text
    assert (approved.json()["effective"], approved.json()["approved_by"]) == (True, "boss")
    assert ended.get("/v1/promotions/bot/latest").json() == approved.json()
    again = ended.post("/v1/promotions/bot/2:approve", headers=key("other"))
    assert (again.status_code, again.json()["detail"]) == (409, "bot@2 is approved already.")
    assert ended.post("/v1/promotions/bot/1:approve", headers=key("other")).json()["detail"].endswith("no approval.")


def test_nothing_may_be_used_before_the_first_approval(ended: TestClient, sessions: Sessions) -> None:
    ask_for_approval(sessions)
    promote(ended)
    answer = ended.get("/v1/promotions/bot/latest/export")
    assert (answer.status_code, "hpo promotion approve bot@1" in answer.json()["detail"]) == (404, True)
    assert ended.get("/v1/promotions/none/latest").json()["detail"].startswith("there is no promotion named")


def test_promoting_needs_its_scope(ended: TestClient, key: Key) -> None:
    promote(ended)
    promote(ended, trial=0)
    reader = key("reader", Scope.STUDY_READ, Scope.APPROVE)
    for path, body in (("", {"study": "first", "name": "bot"}), ("/bot:rollback", {})):
        answer = ended.post(f"/v1/promotions{path}", json=body, headers=reader)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert ended.get("/v1/promotions/bot/latest", headers=reader).status_code == 200


def test_a_rollback_is_a_new_version_of_the_old_parameters(ended: TestClient, sessions: Sessions) -> None:
    first, second = promote(ended), promote(ended, trial=0)
    ask_for_approval(sessions)
    back = ended.post("/v1/promotions/bot:rollback", json={"note": "worse in production"})
    assert back.status_code == 201, back.text
    made = back.json()
    assert (made["version"], made["rollback_of"], made["effective"]) == (3, 1, True)
    assert (made["parameters"], made["note"]) == (first["parameters"], "worse in production")
    document = yaml.safe_load(ended.get("/v1/promotions/bot/latest/export").text)
    assert (document["provenance"]["promotion"], document["provenance"]["repeats"]) == ("bot@3", "bot@1")
    nothing = ended.post("/v1/promotions/bot:rollback", json={})
    assert (nothing.status_code, "none to go back to" in nothing.json()["detail"]) == (409, True)
    assert ended.post("/v1/promotions/bot:rollback", json={"version": 1}).status_code == 409
    forward = ended.post("/v1/promotions/bot:rollback", json={"version": 2}).json()
    assert (forward["version"], forward["parameters"]) == (4, second["parameters"])


def test_a_version_that_was_never_approved_cannot_be_gone_back_to(ended: TestClient, sessions: Sessions) -> None:
    promote(ended)
    ask_for_approval(sessions)
    promote(ended, trial=0)
    answer = ended.post("/v1/promotions/bot:rollback", json={"version": 2})
    assert (answer.status_code, "never approved" in answer.json()["detail"]) == (409, True)


def test_two_promotions_side_by_side(ended: TestClient) -> None:
    first, second = promote(ended), promote(ended, "other", trial=0)
    found = ended.get("/v1/promotions/bot/1/diff", params={"other": "other@latest"}).json()
    assert (found["before"], found["after"]) == ("bot@1", "other@1")
    changed = {change["path"]: (change["before"], change["after"]) for change in found["changes"]}
    for name in first["parameters"]:
        before, after = first["parameters"][name], second["parameters"][name]
        assert changed.get(f"parameters.{name}") == (None if before == after else (before, after))
    assert changed["verdict"] == (first["verdict"], second["verdict"])
    assert ended.get("/v1/promotions/bot/1/diff", params={"other": "bot@1"}).json()["changes"] == []
    assert ended.get("/v1/promotions/bot/1/diff", params={"other": "bot"}).status_code == 400


def test_other_projects_see_nothing(ended: TestClient, sessions: Sessions, key: Key) -> None:
    promote(ended)
    foreign = key("foreign", project=serving.make_project(sessions, "second"))
    reads = ("/bot/latest", "/bot/1", "/bot/1/export", "/bot/1/diff?other=bot@1")
    writes = ("/bot/1:approve", "/bot:rollback")
    for method, path in (*(("GET", path) for path in reads), *(("POST", path) for path in writes)):
        answer = ended.request(method, f"/v1/promotions{path}", json={}, headers=foreign)
        assert answer.status_code == 404, f"{method} {path}: {answer.text}"
    assert ended.get("/v1/promotions", headers=foreign).json()["items"] == []


def test_pages_of_one_name(ended: TestClient) -> None:
    for name in ("bot", "other", "bot"):
        promote(ended, name)
    first = ended.get("/v1/promotions", params={"name": "bot", "page_size": 1}).json()
    rest = ended.get(
        "/v1/promotions", params={"name": "bot", "page_size": 1, "page_token": first["next_page_token"]}
    ).json()
    assert [one["version"] for one in (*first["items"], *rest["items"])] == [2, 1]
    assert rest["next_page_token"] is None


def test_a_confirmed_winner_brings_its_uncertainty(client: TestClient, sessions: Sessions, root: Path) -> None:
    data = {"train": "train.jsonl", "eval": "eval.jsonl", "test": "eval.jsonl"}
    budget = {"max_trials": 6, "max_examples": 3000}
    client.post("/v1/studies", json=spec(confirm={"seeds": 2, "share": 1.0}, budget=budget, data=data))
    dispatcher, _ = serving.make_dispatcher(sessions)
    turn_until(dispatcher, lambda: client.get("/v1/studies/first").json()["state"] == "completed")
    best = client.get("/v1/studies/first/best").json()
    serving.keep_snapshot(root, sessions, best["trial_number"])
    made = promote(client)
    assert made["losses"]["confirmed_loss"] == best["confirmed"]["mean"]
    assert made["losses"]["test_loss"] == best["confirmed"]["test_loss"] is not None
    assert made["comparison"]["half_width"] == best["confirmed"]["half_width"]
    assert (best["confirmed"]["seeds"], made["losses"]["confirmed_seeds"]) == (2, 2)
    runs = {
        one["trial_number"]: {run["seed"]: run["loss"] for run in one["runs"]}
        for one in client.get("/v1/studies/first/confirmation").json()["candidates"]
    }
    ours = runs[best["trial_number"]]
    ((seed, baseline),) = runs[0].items()  # it was clearly behind after one
    compared = made["comparison"]
    assert (compared["seeds"], compared["loss"], compared["baseline_loss"]) == (1, ours[seed], baseline)
    assert compared["difference"] == ours[seed] - baseline
    assert " loss over the 1 new seed that both have after " in made["verdict"]
    assert made["bill"]["confirmation_seconds"] > 0
    assert json.loads(client.get("/v1/promotions/bot/1/export", params={"format": "json"}).text)["provenance"][
        "confirmed_half_width"
    ] == made["comparison"]["half_width"]  # fmt: skip
