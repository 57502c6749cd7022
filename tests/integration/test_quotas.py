"""What projects may use at most: work waits and goes on, studies are refused, nothing that runs is stopped."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.messages import IntentKind
from hpo_service.dispatcher import Dispatcher
from hpo_service.dispatcher.scheduling import quotas
from hpo_service.executors.base import ExecutorEvent, SliceEnded, Wanted
from hpo_service.executors.fake import FakeExecutor
from hpo_service.storage.queries import tenants
from hpo_service.storage.queries.tenants import Standing
from hpo_service.storage.tables import DEFAULT_PROJECT_ID, Study
from tests import serving
from tests.dispatching import ask, events_of, loss_of, make, post_study, state_of, turn_until

Sessions = sessionmaker[Session]
QUOTA = "/v1/projects/{}/quota"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quotas are read in every turn."""
    monkeypatch.setattr(quotas, "_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(quotas, "_SHARE", 0)


@pytest.fixture
def other(sessions: Sessions) -> int:
    """Id of a second project."""
    return serving.make_project(sessions, "other")


class Counting(FakeExecutor):
    """Ends one slice a turn, and keeps the most devices that each project held at once, by the database."""

    def __init__(self, sessions: Sessions, workers: int) -> None:
        super().__init__(loss_of, workers=workers)
        self.hold = True
        self.sessions = sessions
        self.most: Counter[int] = Counter()

    def poll(self, timeout_seconds: float) -> Sequence[ExecutorEvent]:
        with self.sessions() as session:
            for standing in tenants.standings(session):
                self.most[standing.project_id] = max(self.most[standing.project_id], standing.devices)
        for worker, held in self._held.items():
            if held:
                self._events.append(SliceEnded(worker=worker, result=self._result(held.popleft())))
                break
        return super().poll(timeout_seconds)


class Asked(FakeExecutor):
    """Keeps what it is asked for."""

    def __init__(self, wanted: list[Wanted], **options: Any) -> None:
        super().__init__(loss_of, **options)
        self.wanted = wanted

    def demand(self, wanted: Sequence[Wanted]) -> None:
        self.wanted.extend(wanted)
        super().demand(wanted)


def limit(sessions: Sessions, project_id: int, **limits: float | None) -> None:
    with sessions.begin() as session:
        tenants.set_limits(session, project_id, limits)


def standing(sessions: Sessions, project_id: int = DEFAULT_PROJECT_ID) -> Standing:
    with sessions() as session:
        return tenants.standing(session, project_id)


def message_of(sessions: Sessions, study_id: int) -> str:
    with sessions() as session:
        return session.execute(select(Study.message).where(Study.id == study_id)).scalar_one()


def ended(sessions: Sessions, *studies: int) -> Callable[[], bool]:
    return lambda: all(state_of(sessions, study) == "completed" for study in studies)


FREE: dict[str, Any] = {"search__deterministic": False, "search__strategy": "asha", "search__sampler": "random"}


def test_devices_of_one_project_never_exceed_its_quota_and_others_take_the_rest(sessions: Sessions, other: int) -> None:
    limit(sessions, other, parallel_gpus=2)
    mine = post_study(sessions, **FREE, budget__max_trials=20)
    theirs = [
        post_study(
            sessions, project_id=other, metadata={"name": name}, resources=resources, budget__max_trials=9, **FREE
        )
        for name, resources in (("one", {"priority": 90}), ("two", {"priority": 90}), ("three", {}))
    ]
    fake = Counting(sessions, workers=6)
    dispatcher, _ = make(sessions, fake)
    turn_until(dispatcher, ended(sessions, mine, *theirs), turns=2000)
    assert fake.most[other] == 2
    assert fake.most[DEFAULT_PROJECT_ID] >= 4


def test_a_trial_that_is_larger_than_the_quota_waits_and_says_so(sessions: Sessions) -> None:
    limit(sessions, DEFAULT_PROJECT_ID, parallel_gpus=1)
    large = post_study(sessions, resources={"gpus_per_trial": 2}, budget__max_trials=2)
    small = post_study(sessions, metadata={"name": "small"}, budget__max_trials=2)
    fake = FakeExecutor(loss_of, workers=2)
    dispatcher, _ = make(sessions, fake)
    turn_until(dispatcher, ended(sessions, small))
    message = message_of(sessions, large)
    assert "a trial takes 2 device(s) and project default may use 1 at once" in message
    assert (state_of(sessions, large), {work.trial.training.ranks for work in fake.submitted}) == ("queued", {1})
    assert [event.payload.get("message") for event in events_of(sessions, large)].count(message) == 1
    limit(sessions, DEFAULT_PROJECT_ID, parallel_gpus=None)
    turn_until(dispatcher, ended(sessions, large))
    assert not message_of(sessions, large).startswith(quotas.WAITS)


def test_a_quota_that_shrinks_stops_nothing(sessions: Sessions) -> None:
    study = post_study(sessions, **FREE, budget__max_trials=8)
    fake = FakeExecutor(loss_of, workers=3)
    fake.hold = True
    dispatcher, _ = make(sessions, fake)
    turn_until(dispatcher, lambda: standing(sessions).devices >= 3)
    before = len(fake.submitted)
    limit(sessions, DEFAULT_PROJECT_ID, parallel_gpus=1)
    for _ in range(5):
        dispatcher.turn()
    assert (len(fake.submitted), fake._stopped) == (before, set())
    fake.hold = False
    turn_until(dispatcher, ended(sessions, study))
    with sessions() as session:
        assert session.scalar(text("SELECT count(*) FROM hpo.attempts WHERE outcome = 'preempted'")) == 0


def test_gpu_hours_end_with_the_month_and_come_back_with_the_next(sessions: Sessions, other: int) -> None:
    """A slice of the fake executor takes a millisecond, so the month has room for a few of them."""
    limit(sessions, DEFAULT_PROJECT_ID, gpu_hours_month=0.0045 / 3600)
    study = post_study(sessions)
    theirs = post_study(sessions, project_id=other, metadata={"name": "theirs"})
    dispatcher, fake = make(sessions)
    turn_until(dispatcher, lambda: "GPU-hours of this month" in message_of(sessions, study))
    turn_until(dispatcher, ended(sessions, theirs))
    used = standing(sessions)
    assert 0.003 <= used.device_seconds_month <= 0.006
    assert state_of(sessions, study) == "running"
    before = len(fake.submitted)
    for _ in range(5):
        dispatcher.turn()
    assert len(fake.submitted) == before
    with sessions.begin() as session:
        session.execute(
            text("UPDATE hpo.attempts SET finished_at = date_trunc('month', now(), 'UTC') - interval '1 second'")
        )
    assert standing(sessions).device_seconds_month == 0
    turn_until(dispatcher, lambda: len(fake.submitted) > before)
    assert message_of(sessions, study) == ""
    limit(sessions, DEFAULT_PROJECT_ID, gpu_hours_month=1)
    turn_until(dispatcher, ended(sessions, study))


def test_a_study_that_waits_for_its_quota_can_be_cancelled_and_a_new_dispatcher_keeps_to_it(sessions: Sessions) -> None:
    limit(sessions, DEFAULT_PROJECT_ID, parallel_gpus=0)
    study = post_study(sessions, budget__max_trials=2)
    wanted: list[Wanted] = []
    for _ in range(2):
        dispatcher, fake = make(sessions, Asked(wanted))
        with sessions.begin() as session:
            session.execute(text("UPDATE hpo.leases SET expires_at = now() - interval '1 second'"))
        turn_until(dispatcher, lambda: "may use 0 at once" in message_of(sessions, study))
        assert (fake.submitted, wanted) == ([], [])
    ask(sessions, study, IntentKind.CANCEL)
    turn_until(dispatcher, lambda: state_of(sessions, study) == "cancelled")


def test_the_training_of_a_delivery_waits_as_well(client: TestClient, sessions: Sessions, root: Path) -> None:
    wanted: list[Wanted] = []
    dispatcher, fake = make(sessions, Asked(wanted, total_examples=serving.ROWS))
    client.post("/v1/studies", json=serving.spec("first", budget={"max_trials": 1}, baseline=None)).raise_for_status()
    turn_until(dispatcher, lambda: client.get("/v1/studies/first").json()["state"] == "completed")
    serving.keep_snapshot(root, sessions, 0)
    client.post("/v1/promotions", json={"study": "first", "name": "bot"}).raise_for_status()
    client.post("/v1/promotions/bot/latest/deliveries", json={"retrain": True}).raise_for_status()
    limit(sessions, DEFAULT_PROJECT_ID, parallel_gpus=0)
    before = len(fake.submitted)
    turn_until(dispatcher, lambda: bool(dispatcher.context.jobs))
    wanted.clear()
    for _ in range(5):
        dispatcher.turn()
    assert (len(fake.submitted), wanted) == (before, [])
    assert client.get("/v1/deliveries/1").json()["message"] == "the training waits for a worker or its project's quota"
    limit(sessions, DEFAULT_PROJECT_ID, parallel_gpus=1)
    fake.hold = True
    turn_until(dispatcher, lambda: standing(sessions).devices == 1)
    client.post("/v1/studies", json=serving.spec("second", budget={"max_trials": 1}, baseline=None)).raise_for_status()
    for _ in range(10):
        dispatcher.turn()
    assert (len(fake.submitted), standing(sessions).devices) == (before + 1, 1)
    fake.hold = False
    turn_until(dispatcher, lambda: client.get("/v1/deliveries/1").json()["state"] == "completed")
    assert standing(sessions).device_seconds_month > 0
    turn_until(dispatcher, lambda: client.get("/v1/studies/second").json()["state"] == "completed")


def test_snapshots_are_counted_by_project_after_a_sweep(
    client: TestClient, sessions: Sessions, other: int, root: Path
) -> None:
    client.post("/v1/studies", json=serving.spec("first", budget={"max_trials": 1}, baseline=None)).raise_for_status()
    dispatcher, _ = serving.make_dispatcher(sessions)
    turn_until(dispatcher, lambda: client.get("/v1/studies/first").json()["state"] == "completed")
    store = root / "home" / "snapshots"
    unneeded = serving.write_snapshot(store, "1/1/1/1/rung-1")
    with sessions.begin() as session:
        row = serving.newest_slice(session, 0)
        path = f"{row.study_id}/{row.optuna_trial_id}/{row.until_examples}/1/rung-{row.until_examples}"
        row.snapshots = [serving.write_snapshot(store, path).model_dump()]
        session.execute(text("UPDATE hpo.leases SET expires_at = now() - interval '1 second'"))
    assert standing(sessions).stored_bytes == 0
    next_one = Dispatcher(sessions, FakeExecutor(loss_of), snapshots=store)
    turn_until(next_one, lambda: standing(sessions).stored_bytes != 0)
    size_bytes = sum(file.stat().st_size for file in (store / path).iterdir())
    assert (standing(sessions).stored_bytes, standing(sessions, other).stored_bytes) == (size_bytes, 0)
    assert not (store / unneeded.path).exists()


def test_studies_beyond_the_quota_are_refused(client: TestClient, sessions: Sessions) -> None:
    limit(sessions, DEFAULT_PROJECT_ID, studies=1)
    first = client.post("/v1/studies", json=serving.spec("first"), headers={"Idempotency-Key": "k"})
    assert first.status_code == 201
    refused = client.post("/v1/studies", json=serving.spec("second"))
    assert (refused.status_code, refused.json()["code"]) == (409, "quota_exceeded")
    for part in ("has 1 studies", "may have 1", "hpo study cancel", "hpo project quota default --studies"):
        assert part in refused.json()["detail"]
    again = client.post("/v1/studies", json=serving.spec("first"), headers={"Idempotency-Key": "k"})
    assert again.json() == first.json()
    assert client.post("/v1/studies/first:clone", json={"name": "second"}).json()["code"] == "quota_exceeded"
    warned = client.post("/v1/studies:validate", json=serving.spec("second")).json()["warnings"]
    assert refused.json()["detail"] in warned
    client.post("/v1/studies/first:cancel").raise_for_status()
    dispatcher, _ = serving.make_dispatcher(sessions)
    turn_until(dispatcher, lambda: client.get("/v1/studies/first").json()["state"] == "cancelled")
    assert client.post("/v1/studies", json=serving.spec("second")).status_code == 201


def test_stored_bytes_beyond_the_quota_refuse_new_studies(client: TestClient, sessions: Sessions) -> None:
    client.post("/v1/studies", json=serving.spec("first")).raise_for_status()
    limit(sessions, DEFAULT_PROJECT_ID, stored_bytes=1000)
    with sessions.begin() as session:
        tenants.note_stored(session, {1: 999, 77: 5000, 2**70: 1})
    client.post("/v1/studies", json=serving.spec("second")).raise_for_status()
    with sessions.begin() as session:
        tenants.note_stored(session, {1: 600, 2: 400})
    refused = client.post("/v1/studies", json=serving.spec("third"))
    assert (refused.status_code, refused.json()["code"]) == (409, "quota_exceeded")
    for part in ("take 1000 bytes", "may take 1000", "hpo study delete", "--stored-bytes"):
        assert part in refused.json()["detail"]
    with sessions.begin() as session:
        tenants.note_stored(session, {})
    assert standing(sessions).stored_bytes == 0
    assert client.post("/v1/studies", json=serving.spec("third")).status_code == 201


def test_a_quota_over_http(client: TestClient, sessions: Sessions, other: int) -> None:
    path = QUOTA.format("other")
    shown = client.get(path)
    assert shown.json()["limits"] == dict.fromkeys(("parallel_gpus", "gpu_hours_month", "studies", "stored_bytes"))
    assert shown.json()["used"] == {"parallel_gpus": 0, "gpu_hours_month": 0.0, "studies": 0, "stored_bytes": None}
    wanted = {"parallel_gpus": 4, "gpu_hours_month": 12.5}
    blind = client.put(path, json=wanted)
    assert (blind.status_code, blind.json()["code"]) == (428, "precondition_required")
    match = {"If-Match": shown.headers["ETag"]}
    changed = client.put(path, json=wanted, headers=match)
    assert (changed.status_code, changed.json()["limits"]["parallel_gpus"]) == (200, 4)
    late = client.put(path, json={"studies": 1}, headers=match)
    assert (late.status_code, late.json()["code"]) == (412, "precondition_failed")
    assert client.get(path).json()["limits"] == wanted | {"studies": None, "stored_bytes": None}
    replaced = client.put(path, json={"studies": 1}, headers={"If-Match": "*"})
    assert replaced.json()["limits"]["parallel_gpus"] is None
    for body in ({"studies": -1}, {"studies": 1.5}, {"gpu_hours_month": "many"}, {"gpus": 1}, {"stored_bytes": 2**63}):
        answer = client.put(path, json=body, headers={"If-Match": "*"})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_spec"), body
    assert client.get(QUOTA.format("nobodys")).status_code == 404


def test_a_project_sees_its_own_quota_and_cannot_set_it(client: TestClient, sessions: Sessions, other: int) -> None:
    limit(sessions, other, studies=3)
    theirs: dict[str, Any] = {"headers": serving.bearer(serving.make_key(sessions, other)) | {"If-Match": "*"}}
    assert client.get(QUOTA.format("other"), headers=theirs["headers"]).json()["limits"]["studies"] == 3
    refused = client.put(QUOTA.format("other"), json={}, headers=theirs["headers"])
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    for name in ("default", "nobodys"):
        answers = [
            client.get(QUOTA.format(name), headers=theirs["headers"]),
            client.put(QUOTA.format(name), json={}, headers=theirs["headers"]),
        ]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert all(answer.json()["detail"] == f"there is no project '{name}'; `hpo project list` shows them all."
                   for answer in answers)  # fmt: skip
