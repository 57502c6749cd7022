"""Deliveries over HTTP with a dispatcher whose slices and jobs end at once: asked for, refused, done, failed, lost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.auth.principals import Scope, create_key
from hpo_service.core.pricing import Prices
from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.executors.base import JobEnded, SliceEnded, SliceProgress
from hpo_service.executors.fake import FakeExecutor, passed
from hpo_service.storage.queries import promotions
from hpo_service.storage.tables import DEFAULT_PROJECT_ID, Event, Job
from tests import serving
from tests.delivering import CONTENT, Delivering
from tests.dispatching import expire_lease, loss_of, turn_until
from tests.reported import Page
from tests.serving import spec
from trainer.spec import LLAMA_CPP, JobResult, MergeAdapter, Outcome, Progress, QuantizeModel, SnapshotRef
from trainer.spec import Job as Work

Sessions = sessionmaker[Session]
Json = dict[str, Any]


@pytest.fixture
def fake(root: Path) -> Delivering:
    return Delivering(root)


@pytest.fixture
def dispatcher(sessions: Sessions, fake: Delivering) -> Dispatcher:
    return restarted(sessions, fake)


@pytest.fixture
def promoted(client: TestClient, sessions: Sessions, root: Path, dispatcher: Dispatcher) -> TestClient:
    """A client whose promotion `bot` is trial 0 of a study that has ended; its snapshot is not of this very trial."""
    client.post("/v1/studies", json=spec(budget={"max_trials": 1}, baseline=None, data_checks={"enabled": False}))
    turn_until(dispatcher, lambda: client.get("/v1/studies/first").json()["state"] == "completed")
    serving.keep_snapshot(root, sessions, 0)
    assert client.post("/v1/promotions", json={"study": "first", "name": "bot"}).status_code == 201
    return client


def restarted(sessions: Sessions, fake: FakeExecutor) -> Dispatcher:
    return Dispatcher(sessions, fake, snapshots=Path("/nonexistent"), prices=Prices(3600.0))


def deliver(client: TestClient, **body: Any) -> Json:
    answer = client.post("/v1/promotions/bot/latest/deliveries", json=body)
    assert answer.status_code == 202, answer.text
    made: Json = answer.json()
    return made


def delivery(client: TestClient, number: int = 1) -> Json:
    found: Json = client.get(f"/v1/deliveries/{number}").json()
    return found


def ended(client: TestClient, number: int = 1) -> Callable[[], bool]:
    return lambda: delivery(client, number)["state"] in ("completed", "failed")


def kinds(sessions: Sessions) -> list[str]:
    with sessions() as session:
        query = select(Event.kind).where(Event.kind.startswith("delivery."))
        return [kind.removeprefix("delivery.") for kind in session.scalars(query.order_by(Event.id))]


def job(sessions: Sessions, kind: str) -> Job:
    with sessions() as session:
        return session.scalars(select(Job).where(Job.kind == kind)).one()


def test_a_training_waits_for_a_worker_on_which_auto_is_the_same_dtype(
    request: pytest.FixtureRequest, fake: Delivering, sessions: Sessions, root: Path
) -> None:
    fake.auto_dtypes = {"fake/0": "bfloat16"}
    client: TestClient = request.getfixturevalue("promoted")
    deliver(client, retrain=True)
    elsewhere, again = Delivering(root), Delivering(root)
    elsewhere.auto_dtypes, again.auto_dtypes = {"fake/0": "float32"}, {"fake/0": "bfloat16"}
    expire_lease(sessions)
    other = restarted(sessions, elsewhere)
    for _ in range(40):
        other.turn()
    assert (delivery(client)["state"], elsewhere.submitted) == ("queued", [])
    expire_lease(sessions)
    turn_until(restarted(sessions, again), ended(client))
    assert delivery(client)["state"] == "completed"
    assert again.submitted[-1].trial.model.dtype == "bfloat16"


def test_the_page_of_a_promotion_shows_its_deliveries(promoted: TestClient, dispatcher: Dispatcher) -> None:
    assert "hpo deliver bot@1" in Page(promoted.get("/promotions/bot/1").text).text
    deliver(promoted, quantize="q4_k_m")
    assert "waits for the dispatcher" in Page(promoted.get("/promotions/bot/1").text).text
    turn_until(dispatcher, ended(promoted))
    made, page = delivery(promoted), Page(promoted.get("/promotions/bot/1").text)
    loss = f"{made['losses']['loss']:.4f}"
    for seen in ("delivery 1", "adapter, merged, q4_k_m", "completed", loss, f"promoted with {loss}"):
        assert seen in page.text
    links = [value for name, value in page.attributes if name == "href" and value and "/artifacts/" in value]
    assert links == [f"/v1/deliveries/1/artifacts/{artifact['name']}" for artifact in made["artifacts"]]
    assert {promoted.get(link).status_code for link in links[1:]} == {200}  # these workers write no adapter
    other = promoted.post("/v1/promotions", json={"study": "first", "name": "bot"})
    assert other.status_code == 201
    assert "No model was made of it yet" in Page(promoted.get("/promotions/bot/2").text).text


def test_training_merge_and_quantization_follow_each_other(
    promoted: TestClient, dispatcher: Dispatcher, fake: Delivering, sessions: Sessions
) -> None:
    asked = deliver(promoted, quantize="q4_k_m")
    assert (asked["state"], asked["merge"], asked["reuses"], asked["steps"]) == ("queued", True, False, [])
    turn_until(dispatcher, ended(promoted))
    made = delivery(promoted)
    assert (made["state"], made["message"], made["promotion"]) == ("completed", "", "bot@1")
    assert [(step["kind"], step["state"], step["attempt"]) for step in made["steps"]] == [
        ("train_final", "done", 1), ("merge", "done", 1), ("quantize", "done", 1),
    ]  # fmt: skip
    training = fake.submitted[-1]
    document = promoted.get("/v1/promotions/bot/1/export", params={"format": "json"}).json()
    assert training.trial.parameters.model_dump() == document["parameters"]
    assert (training.until_examples, training.snapshots) == (serving.ROWS, ())
    assert training.data_fingerprints is not None
    assert made["losses"]["loss"] == made["losses"]["promoted_loss"] == loss_of(training)
    assert made["losses"]["reused"] is False
    merge, quantize = (work.task for work in fake.jobs[-2:])
    assert isinstance(merge, MergeAdapter)
    assert isinstance(quantize, QuantizeModel)
    assert merge.adapter.path == training.snapshot_dir == "deliveries/1/train/1"
    assert (quantize.merged, quantize.variant) == (merge.folder, "q4_k_m")
    assert [artifact["name"] for artifact in made["artifacts"]] == ["adapter", "merged", "q4_k_m"]
    assert made["artifacts"][2]["path"] == "deliveries/1/q4_k_m/1/model"
    assert (made["artifacts"][2]["size_bytes"], made["artifacts"][2]["generated"]) == (len(CONTENT), "three")
    assert made["cost_usd"] == pytest.approx(made["seconds"]) == pytest.approx(4.001)
    assert kinds(sessions) == ["started", "step", "step", "step", "completed"]
    assert promoted.get("/v1/deliveries", params={"name": "bot", "version": 1}).json()["items"] == [made]
    assert promoted.get("/v1/deliveries", params={"name": "other"}).json()["items"] == []


def test_only_what_is_asked_for_is_made(promoted: TestClient, dispatcher: Dispatcher, fake: Delivering) -> None:
    deliver(promoted)
    turn_until(dispatcher, ended(promoted))
    assert [step["kind"] for step in delivery(promoted)["steps"]] == ["train_final"]
    deliver(promoted, merge=True)
    turn_until(dispatcher, ended(promoted, 2))
    assert [artifact["name"] for artifact in delivery(promoted, 2)["artifacts"]] == ["adapter", "merged"]


def test_an_artifact_is_sent_whole_or_not_at_all(
    promoted: TestClient, dispatcher: Dispatcher, fake: Delivering
) -> None:
    deliver(promoted, merge=True)
    assert promoted.get("/v1/deliveries/1/artifacts/merged").status_code == 404
    turn_until(dispatcher, ended(promoted))
    sent = promoted.get("/v1/deliveries/1/artifacts/merged")
    assert (sent.status_code, CONTENT in sent.content) == (200, True)
    assert len(sent.content) == int(sent.headers["content-length"])
    (fake.store / "deliveries/1/merged/1/model/model.bin").write_bytes(CONTENT[::-1])
    damaged = promoted.get("/v1/deliveries/1/artifacts/merged")
    assert (damaged.status_code, "is not whole any more" in damaged.json()["detail"]) == (404, True)
    for path in ("/v1/deliveries/9", "/v1/deliveries/1/artifacts/q8_0"):
        assert promoted.get(path).status_code == 404


def test_what_cannot_be_delivered_is_refused_before_anything_is_done(
    promoted: TestClient, dispatcher: Dispatcher, fake: Delivering, sessions: Sessions
) -> None:
    with sessions.begin() as session:
        reader = serving.bearer(create_key(session, DEFAULT_PROJECT_ID, "reader", (Scope.STUDY_READ,)))
        session.execute(text("UPDATE hpo.workers SET software = '{}'"))
    path = "/v1/promotions/bot/latest/deliveries"
    for body, status, words in (
        ({"quantize": "q4_k_m"}, 409, f"q4_k_m needs {LLAMA_CPP}, and none of the 1 workers (fake-0) has it"),
        ({"quantize": "awq-w4a16"}, 422, "needs a GPU of its own"),
        ({"quantize": "q3"}, 422, "/quantize"),
        ({"output": "/tmp"}, 422, "/output"),
    ):
        answer = promoted.post(path, json=body)
        assert (answer.status_code, words in answer.text) == (status, True), answer.text
    assert promoted.post(path, json={}, headers=reader).status_code == 403
    assert promoted.post("/v1/promotions/none/latest/deliveries", json={}).status_code == 404
    with sessions.begin() as session:
        promotions.set_approval(session, DEFAULT_PROJECT_ID, True)
    promoted.post("/v1/promotions", json={"study": "first", "name": "bot"})
    waiting = promoted.post("/v1/promotions/bot/2/deliveries", json={})
    assert (waiting.status_code, "hpo promotion approve bot@2" in waiting.json()["detail"]) == (409, True)
    assert promoted.get("/v1/deliveries").json()["items"] == []


def test_without_a_worker_that_could_quantize_nothing_is_trained(
    promoted: TestClient, sessions: Sessions, fake: Delivering
) -> None:
    """Of what no worker was there to say when it was asked for."""
    with sessions.begin() as session:
        session.execute(text("UPDATE hpo.workers SET state = 'gone'"))
    deliver(promoted, quantize="q8_0")
    expire_lease(sessions)
    plain = FakeExecutor(loss_of)
    turn_until(restarted(sessions, plain), ended(promoted))
    failed = delivery(promoted)
    assert (
        f"the training (job {failed['steps'][0]['job']}) failed with lost: none of the 1 workers has {LLAMA_CPP}"
        in (failed["message"])
    )
    assert plain.submitted == []
    assert kinds(sessions) == ["started", "failed"]


def test_the_same_request_is_one_delivery(promoted: TestClient) -> None:
    headers = {"Idempotency-Key": "d"}
    path = "/v1/promotions/bot/1/deliveries"
    first, again = (promoted.post(path, json={"merge": True}, headers=headers) for _ in range(2))
    assert first.json() == again.json()
    assert first.headers["location"] == "/v1/deliveries/1"
    assert promoted.post(path, json={}, headers=headers).status_code == 422
    assert len(promoted.get("/v1/deliveries").json()["items"]) == 1


def test_a_step_that_fails_says_which_and_why(
    promoted: TestClient, dispatcher: Dispatcher, fake: Delivering, sessions: Sessions
) -> None:
    fake.answer = lambda job: JobResult(
        job_id=job.job_id, attempt=job.attempt, outcome=Outcome.USER_ERROR, message="the base is quantized already"
    )
    deliver(promoted, quantize="q8_0")
    turn_until(dispatcher, ended(promoted))
    failed = delivery(promoted)
    assert failed["message"] == (
        f"the merge (job {failed['steps'][1]['job']}) failed with user_error: the base is quantized already. "
        "Mend that and deliver again."
    )
    assert [artifact["name"] for artifact in failed["artifacts"]] == ["adapter"]
    assert kinds(sessions) == ["started", "step", "failed"]


def test_a_step_whose_report_is_no_artifact_is_tried_again(
    promoted: TestClient, dispatcher: Dispatcher, fake: Delivering
) -> None:
    def nonsense_at_first(job: Work) -> JobResult:
        return passed(job) if job.attempt == 1 else fake.build(job)

    fake.answer = nonsense_at_first
    deliver(promoted, quantize="q8_0")
    turn_until(dispatcher, ended(promoted))
    made = delivery(promoted)
    assert (made["state"], len(made["artifacts"])) == ("completed", 3)
    failures = [(step["attempt"], step["failures_by_cause"]) for step in made["steps"]]
    assert failures == [(1, {}), (2, {"infra_error": 1}), (2, {"infra_error": 1})]


def test_a_lost_training_goes_on_from_its_newest_checkpoint(
    promoted: TestClient, dispatcher: Dispatcher, fake: Delivering, sessions: Sessions
) -> None:
    fake.hold = True
    deliver(promoted)
    before = len(fake.submitted)
    turn_until(dispatcher, lambda: len(fake.submitted) > before)
    work = fake.submitted[-1]
    checkpoint = SnapshotRef(path=f"{work.snapshot_dir}/checkpoint-64", digest="1" * 64, examples_seen=64)
    progress = Progress(
        slice_id=work.slice_id,
        attempt=1,
        examples_seen=64,
        step=4,
        train_loss=2.0,
        tokens_per_second=9.0,
        memory_bytes=1,
        checkpoint=checkpoint,
    )
    fake.send_progress(SliceProgress(worker=fake.workers()[0], progress=progress))
    turn_until(dispatcher, lambda: delivery(promoted)["steps"][0]["progress"].get("examples_seen") == 64)
    assert delivery(promoted)["state"] == "running"
    fake.kill(fake.workers()[0])
    turn_until(dispatcher, lambda: len(fake.submitted) > before + 1)
    again = fake.submitted[-1]
    assert (again.token, again.snapshots) == ((work.slice_id, 2), (checkpoint,))
    assert again.snapshot_dir == "deliveries/1/train/2"
    stale = fake._result(work)
    fake._events.append(SliceEnded(worker="fake-0", result=stale))
    dispatcher.turn()
    assert (job(sessions, "train_final").state, job(sessions, "train_final").attempt) == ("running", 2)
    fake.hold = False
    turn_until(dispatcher, ended(promoted))
    made = delivery(promoted)
    assert (made["state"], made["steps"][0]["failures_by_cause"]) == ("completed", {"worker_died": 1})
    assert made["seconds"] > 0


@pytest.mark.parametrize("turns", [1, 2, 4, 7])
def test_a_restarted_dispatcher_goes_on(promoted: TestClient, sessions: Sessions, root: Path, turns: int) -> None:
    deliver(promoted, quantize="f16")
    for _ in range(2):
        expire_lease(sessions)
        dispatcher = restarted(sessions, Delivering(root))
        for _ in range(turns):
            dispatcher.turn()
    expire_lease(sessions)
    turn_until(restarted(sessions, Delivering(root)), ended(promoted))
    made = delivery(promoted)
    assert (made["state"], len(made["steps"])) == ("completed", 3)
    assert kinds(sessions) == ["started", "step", "step", "step", "completed"]


def test_draining_keeps_what_a_training_reached(
    promoted: TestClient, dispatcher: Dispatcher, fake: Delivering, sessions: Sessions
) -> None:
    fake.hold = True
    deliver(promoted)
    before = len(fake.submitted)
    turn_until(dispatcher, lambda: len(fake.submitted) > before)
    dispatcher._drain()
    row = job(sessions, "train_final")
    assert (row.state, row.failures, row.outcome) == ("waiting", 0, "preempted")


def test_a_training_and_a_study_share_the_worker(
    promoted: TestClient, dispatcher: Dispatcher, fake: Delivering
) -> None:
    fake.hold = True
    deliver(promoted)
    promoted.post("/v1/studies", json=spec("second", budget={"max_trials": 2}, data_checks={"enabled": False}))
    before = len(fake.submitted)
    turn_until(dispatcher, lambda: len(fake.submitted) == before + 1)
    for _ in range(6):
        dispatcher.turn()
    assert len(fake.submitted) <= before + 2
    fake.hold = False
    turn_until(dispatcher, lambda: promoted.get("/v1/studies/second").json()["state"] == "completed")
    turn_until(dispatcher, ended(promoted))
    assert delivery(promoted)["state"] == "completed"


def test_a_stale_report_of_a_merge_changes_nothing(
    promoted: TestClient, dispatcher: Dispatcher, fake: Delivering, sessions: Sessions
) -> None:
    fake.hold_jobs = True
    deliver(promoted, merge=True)
    turn_until(dispatcher, lambda: len(fake.jobs) == 1)
    fake.kill(fake.workers()[0])
    turn_until(dispatcher, lambda: len(fake.jobs) == 2)
    assert [work.task.folder for work in fake.jobs] == [f"deliveries/1/merged/{attempt}/model" for attempt in (1, 2)]  # type: ignore[union-attr]
    fake._events.append(JobEnded(worker="fake-0", result=fake.build(fake.jobs[0])))
    dispatcher.turn()
    assert (job(sessions, "merge").state, job(sessions, "merge").report) == ("running", None)


def test_rows_never_change(promoted: TestClient, sessions: Sessions) -> None:
    deliver(promoted)
    for statement in ("UPDATE hpo.deliveries SET retrain = true", "DELETE FROM hpo.deliveries"):
        with pytest.raises(DBAPIError, match="never change"), sessions.begin() as session:
            session.execute(text(statement))
