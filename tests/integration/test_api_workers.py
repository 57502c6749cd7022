"""Workers, slices and events of the service, as their users see them."""

import json

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.dispatcher.workers.fault_detection import Faults
from hpo_service.executors.base import WorkerReady
from hpo_service.executors.fake import FakeExecutor
from hpo_service.storage.tables import Event
from tests import serving
from tests.dispatching import turn_until
from tests.integration.test_liveness import broken_result
from tests.serving import spec
from trainer.spec import Ready

Sessions = sessionmaker[Session]


@pytest.fixture
def running(client: TestClient, sessions: Sessions) -> tuple[Dispatcher, FakeExecutor]:
    """A study whose first slice runs on the one worker."""
    client.post("/v1/studies", json=spec())
    dispatcher, fake = serving.make_dispatcher(sessions)
    fake.hold = True
    turn_until(dispatcher, lambda: len(fake.submitted) == 1)
    return dispatcher, fake


def states(client: TestClient, **query: str) -> dict[str, str]:
    return {worker["name"]: worker["state"] for worker in client.get("/v1/workers", params=query).json()["items"]}


def test_a_worker_is_quarantined_and_released(
    client: TestClient, running: tuple[Dispatcher, FakeExecutor], sessions: Sessions
) -> None:
    dispatcher, fake = running
    (worker,) = client.get("/v1/workers").json()["items"]
    slice_id = fake.submitted[0].slice_id
    assert worker["slices"] == [{"study": "first", "trial_number": 0, "slice_id": slice_id, "attempt": 1}]
    assert (worker["node"], worker["places"], worker["device"]) == ("fake", ["fake/0"], "fake")
    answer = client.post("/v1/workers/fake-0:quarantine", params={"reason": "smells burnt"})
    assert (answer.status_code, answer.json()["pending"]) == (202, ["worker_quarantine"])
    turn_until(dispatcher, lambda: not fake.workers())
    dispatcher.turn()
    (worker,) = client.get("/v1/workers").json()["items"]
    assert (worker["state"], worker["message"], worker["pending"]) == ("quarantined", "smells burnt", [])
    assert worker["gone_at"] is not None
    again = client.post("/v1/workers/fake-0:drain")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert "only a worker that is ready can be drained" in again.json()["detail"]
    assert client.post("/v1/workers/fake-0:release").status_code == 202
    turn_until(dispatcher, lambda: states(client) == {"fake-1": "ready"})
    assert states(client, gone="true") == {"fake-1": "ready", "fake-0": "gone"}
    first = client.get("/v1/workers", params={"gone": "true", "page_size": "1"}).json()
    rest = client.get("/v1/workers", params={"gone": "true", "page_token": first["next_page_token"]}).json()
    assert [page["items"][0]["name"] for page in (first, rest)] == ["fake-1", "fake-0"]
    events = client.get("/v1/events", params={"page_size": 3}).json()
    assert [event["kind"] for event in events["items"]] == [
        "dispatcher.took_over",
        "worker.quarantined",
        "worker.ended",
    ]
    (last,) = client.get("/v1/events", params={"page_token": events["next_page_token"]}).json()["items"]
    assert (last["kind"], last["payload"]["places"]) == ("worker.released", ["fake/0"])


def test_a_study_says_why_it_stands_still(
    client: TestClient,
    running: tuple[Dispatcher, FakeExecutor],
    sessions: Sessions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the only worker every attempt breaks; it is quarantined, and released once it is mended."""
    dispatcher, fake = running
    dispatcher.context.faults = Faults(first_rest_seconds=0.01)
    dispatcher.context.faults.hear([ready_of(fake)])
    assert client.get("/v1/studies/first").json()["standstill"] is None
    with monkeypatch.context() as patch:
        patch.setattr(fake, "_result", broken_result)
        fake.hold = False
        turn_until(dispatcher, lambda: states(client) == {"fake-0": "quarantined"} and not fake.workers())
    study = client.get("/v1/studies/first").json()
    assert study["state"] == "running"
    assert "5 attempts in a row broke on it, the only worker, the last one: OSError" in study["standstill"]
    assert "hpo worker release fake-0" in study["standstill"]
    with sessions() as session:
        assert session.scalars(select(Event.study_id).where(Event.kind == "worker.quarantined")).all().count(None) == 1
        assert session.scalars(
            select(Event).where(Event.kind == "worker.quarantined", Event.study_id.is_not(None))
        ).one()
    assert client.post("/v1/workers/fake-0:release").status_code == 202
    turn_until(dispatcher, lambda: bool(client.get("/v1/studies/first").json()["state"] == "completed"))


def ready_of(fake: FakeExecutor) -> WorkerReady:
    (worker,) = fake.workers()
    return WorkerReady(worker=worker, ready=Ready(pid=1, device="fake", software={}), places=("fake/0",))


def test_a_trial_and_its_slices_say_what_became_of_every_attempt(
    client: TestClient, running: tuple[Dispatcher, FakeExecutor]
) -> None:
    dispatcher, fake = running
    fake.kill("fake-0", "ended with signal SIGKILL")
    turn_until(dispatcher, lambda: len(fake.submitted) == 2)
    (piece,) = client.get("/v1/studies/first/slices").json()["items"]
    assert (piece["state"], piece["attempt"], piece["worker"]) == ("running", 2, "fake-1")
    assert (piece["failures"], piece["failures_by_cause"]) == (1, {"worker_died": 1})
    fake.hold = False
    turn_until(dispatcher, lambda: client.get("/v1/studies/first").json()["state"] == "completed")
    lost, done = client.get("/v1/studies/first/trials/0").json()["history"][:2]
    assert (lost["worker"], lost["node"], lost["outcome"], lost["cause"]) == ("fake-0", "fake", "lost", "worker_died")
    assert "ended with signal SIGKILL" in lost["message"]
    assert (done["worker"], done["outcome"], done["cause"]) == ("fake-1", "done", None)
    assert (lost["estimated"], done["estimated"]) == (True, False)
    assert lost["usage"]["lost_seconds"] == lost["seconds"] > 0
    bill = client.get("/v1/studies/first").json()["spent"]
    assert bill["lost_seconds"] == pytest.approx(lost["seconds"])
    first = client.get("/v1/studies/first/slices").json()["items"][0]
    assert first["seconds"] == pytest.approx(lost["seconds"] + done["seconds"])
    assert first["lost_seconds"] == lost["seconds"]
    assert client.get("/v1/studies/first/slices", params={"state": "running"}).json()["items"] == []
    pages = client.get("/v1/studies/first/slices", params={"page_size": 2}).json()
    following = client.get("/v1/studies/first/slices", params={"page_token": pages["next_page_token"]}).json()
    ids = [piece["id"] for piece in (*pages["items"], *following["items"])]
    assert ids == sorted(set(ids))
    assert all(piece["state"] == "done" for piece in following["items"])


def test_workers_that_are_not_there(client: TestClient) -> None:
    assert client.get("/v1/workers").json() == {"items": [], "next_page_token": None}
    assert client.post("/v1/workers/nobody:drain").status_code == 404
    assert client.get("/v1/studies/none/slices").status_code == 404
    assert client.post("/v1/workers/nobody:drain", params={"reason": "a\x00b"}).status_code == 400
    assert client.get("/v1/workers", params={"page_token": "x"}).status_code == 400


def test_another_project_sees_and_steers_none_of_it(
    client: TestClient, running: tuple[Dispatcher, FakeExecutor], sessions: Sessions
) -> None:
    other = serving.make_key(sessions, serving.make_project(sessions, "other"))
    headers = serving.bearer(other)
    for path in ("/v1/workers", "/v1/events"):
        assert client.get(path, headers=headers).json()["items"] == []
    assert client.post("/v1/workers/fake-0:drain", headers=headers).status_code == 404
    assert client.get("/v1/studies/first/slices", headers=headers).status_code == 404
    assert "first" in json.dumps(client.get("/v1/workers").json())
