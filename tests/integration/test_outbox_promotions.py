"""Promotions are told to MLflow's registry: a version each, once, and a champion that is what production uses."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.auth.principals import Scope, create_key
from hpo_service.integrations.delivery import Delivery
from hpo_service.integrations.mlflow import MlflowTracker
from hpo_service.integrations.process import MLFLOW_ENVIRONMENT
from hpo_service.integrations.tracker_sink import TrackingSink
from hpo_service.storage.queries import promotions
from hpo_service.storage.tables import DEFAULT_PROJECT_ID
from tests import serving
from tests.mlflow_registry_stub import Refusal
from tests.mlflow_stub import StubStore, served
from tests.promoted import end_study, promote
from tests.tracked import drain, rewind
from trainer.snapshots.stores import open_store

Json = dict[str, Any]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> StubStore:
    for name, value in MLFLOW_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return StubStore()


@pytest.fixture
def tell(store: StubStore, engine: Engine, sessions: sessionmaker[Session], root: Path) -> Iterator[Callable[[], int]]:
    """The dispatcher makes events of what was promoted, a new outbox tells all of them; how many turns failed."""

    def turn() -> int:
        dispatcher, _ = serving.make_dispatcher(sessions)
        for _ in range(3):
            dispatcher.turn()
        dispatcher.context.proposals.close()
        dispatcher.context.leadership.release()
        snapshots = open_store(root / "home" / "snapshots")
        return drain(Delivery(engine, TrackingSink(sessions, MlflowTracker(url, "hpo"), store=snapshots, keep_best=1)))

    with served(store) as url:
        yield turn


@pytest.fixture
def ended(client: TestClient, sessions: sessionmaker[Session], root: Path) -> TestClient:
    end_study(client, sessions, root)
    return client


def trial_of(store: StubStore, version: Json) -> str:
    """The trial whose run holds the version's files."""
    run = store.runs[version["run_id"]]
    assert version["source"] == f"{run['info']['artifact_uri']}/adapter"
    path = version["source"].removeprefix("mlflow-artifacts:/")
    assert store.files[f"{path}/adapter_model.safetensors"] == serving.SNAPSHOT_FILES["adapter_model.safetensors"]
    tags = {one["key"]: one["value"] for one in run["data"]["tags"]}
    return str(tags["hpo.trial"])


def test_a_version_each_and_the_champion_goes_back_with_a_rollback(
    ended: TestClient, store: StubStore, tell: Callable[[], int], engine: Engine
) -> None:
    first = promote(ended, note="for the bot")
    tell()
    (version,) = store.models["bot"]["versions"]
    assert trial_of(store, version) == str(first["trial_number"])
    digests = {f"hpo.digest.{name}": digest for name, digest in first["digests"].items() if digest}
    told = {name: value for name, value in version["tags"].items() if name != "hpo.key"}
    assert told == digests | {
        "hpo.promotion": "bot@1",
        "hpo.project": "default",
        "hpo.study": "first",
        "hpo.trial": str(first["trial_number"]),
        "hpo.promoted_by": "test",
        "hpo.note": "for the bot",
    }
    assert store.models["bot"]["aliases"] == {"champion": "1"}
    promote(ended, trial=0)
    tell()
    assert trial_of(store, store.models["bot"]["versions"][1]) == "0"
    assert store.models["bot"]["aliases"] == {"champion": "2"}
    assert ended.post("/v1/promotions/bot:rollback", json={}).status_code == 201
    tell()
    assert store.models["bot"]["aliases"] == {"champion": "1"}
    store.models["bot"]["aliases"]["champion"] = "2"  # somebody's wish
    rewind(engine)
    tell()
    assert len(store.models["bot"]["versions"]) == 2
    assert store.models["bot"]["aliases"] == {"champion": "2"}


def test_what_waits_for_approval_is_a_version_and_no_champion(
    ended: TestClient, store: StubStore, tell: Callable[[], int], sessions: sessionmaker[Session]
) -> None:
    promote(ended)
    with sessions.begin() as session:
        promotions.set_approval(session, DEFAULT_PROJECT_ID, True)
        second = serving.bearer(create_key(session, DEFAULT_PROJECT_ID, "second", tuple(Scope)))
    promote(ended, trial=0)
    tell()
    assert [one["tags"]["hpo.promotion"] for one in store.models["bot"]["versions"]] == ["bot@1", "bot@2"]
    assert store.models["bot"]["aliases"] == {"champion": "1"}
    assert ended.post("/v1/promotions/bot/2:approve", headers=second).status_code == 200
    tell()
    assert store.models["bot"]["aliases"] == {"champion": "2"}
    assert store.models["bot"]["versions"][1]["tags"]["hpo.approved_by"] == "second"


def test_the_later_promotion_stays_champion_when_an_earlier_one_is_approved(
    ended: TestClient, store: StubStore, tell: Callable[[], int], sessions: sessionmaker[Session]
) -> None:
    for needed in (True, False):
        with sessions.begin() as session:
            promotions.set_approval(session, DEFAULT_PROJECT_ID, needed)
            second = serving.bearer(create_key(session, DEFAULT_PROJECT_ID, "second", tuple(Scope)))
        promote(ended)
    assert ended.post("/v1/promotions/bot/1:approve", headers=second).status_code == 200
    tell()
    assert ended.get("/v1/promotions/bot/latest").json()["version"] == 2
    assert store.models["bot"]["aliases"] == {"champion": "2"}


def test_every_answer_is_lost_once(ended: TestClient, store: StubStore, tell: Callable[[], int]) -> None:
    tell()
    lost = set[tuple[str, str]]()

    def lose(path: str, content: str) -> None:
        if (path, content) not in lost:
            lost.add((path, content))
            raise Refusal(500, "INTERNAL_ERROR", "the answer is lost")

    store.trouble = lose
    promote(ended)
    promote(ended, trial=0)
    assert tell() > 10
    assert [one["tags"]["hpo.promotion"] for one in store.models["bot"]["versions"]] == ["bot@1", "bot@2"]
    assert store.models["bot"]["aliases"] == {"champion": "2"}


def test_an_adapter_that_is_damaged_meanwhile_holds_nothing_up(
    ended: TestClient,
    store: StubStore,
    tell: Callable[[], int],
    sessions: sessionmaker[Session],
    root: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    best = promote(ended)["trial_number"]
    promote(ended, trial=0)
    with sessions() as session:
        path = serving.newest_slice(session, best).snapshots[0]["path"]
    (root / "home" / "snapshots" / path / "adapter_model.safetensors").write_bytes(b"Weights" * 1000)
    tell()
    (version,) = store.models["bot"]["versions"]
    assert version["tags"]["hpo.promotion"] == "bot@2"
    assert "refuses a version of model bot" in caplog.text


def test_models_of_another_project_begin_with_its_name(
    anonymous: TestClient, store: StubStore, tell: Callable[[], int], sessions: sessionmaker[Session], root: Path
) -> None:
    anonymous.headers.update(serving.bearer(serving.make_key(sessions, serving.make_project(sessions, "vision"))))
    end_study(anonymous, sessions, root)
    promote(anonymous)
    tell()
    assert list(store.models) == ["vision bot"]
    assert store.models["vision bot"]["aliases"] == {"champion": "1"}
