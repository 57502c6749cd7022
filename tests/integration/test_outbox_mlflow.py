"""Studies are told to MLflow: complete and once, whatever happens to MLflow or to the outbox meanwhile."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from sqlalchemy import Engine, update
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.integrations import delivery as delivery_module
from hpo_service.integrations.delivery import Delivery
from hpo_service.integrations.mlflow import MlflowTracker
from hpo_service.integrations.process import MLFLOW_ENVIRONMENT
from hpo_service.integrations.tracker_sink import TrackingSink
from hpo_service.storage.queries.outbox import open_cursor
from hpo_service.storage.tables import Slice
from tests import serving
from tests.dispatching import make, post_study, state_of, turn_until
from tests.mlflow_registry_stub import Refusal
from tests.mlflow_stub import StubStore, served, tags_of
from tests.tracked import drain, require_told, runs_of
from trainer.snapshots.stores import open_store

Deliver = Callable[[str], Delivery]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in MLFLOW_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def store() -> StubStore:
    return StubStore()


@pytest.fixture
def url(store: StubStore) -> Iterator[str]:
    with served(store) as url:
        yield url


@pytest.fixture
def deliver(engine: Engine, sessions: sessionmaker[Session], tmp_path: Path) -> Deliver:
    """A new process of the outbox, as far as it matters."""

    def new(url: str) -> Delivery:
        sink = TrackingSink(sessions, MlflowTracker(url, "hpo"), store=open_store(tmp_path / "snapshots"), keep_best=2)
        return Delivery(engine, sink)

    return new


def run_study(sessions: sessionmaker[Session], name: str = "s") -> int:
    study_id = post_study(sessions, metadata__name=name)
    dispatcher, _ = make(sessions)
    turn_until(dispatcher, lambda: state_of(sessions, study_id) == "completed")
    dispatcher.context.proposals.close()
    dispatcher.context.leadership.release()
    return study_id


def test_down_for_a_whole_study_then_complete_and_once(
    store: StubStore, deliver: Deliver, sessions: sessionmaker[Session], database_url: str
) -> None:
    with served(store) as url:
        port = int(url.rsplit(":", 1)[1])
    stop, down = threading.Event(), deliver(url)
    outbox = threading.Thread(target=down.run, args=(stop,))
    outbox.start()
    run_study(sessions)
    deadline = time.monotonic() + 60
    while not down.failures and time.monotonic() < deadline:
        time.sleep(0.05)
    stop.set()
    outbox.join()
    assert down.failures
    assert not store.calls
    with served(store, port) as url:
        assert drain(deliver(url)) == 0
        parent = require_told(MlflowClient(url), database_url)
    assert parent.data.tags["hpo.state"] == "completed"
    assert parent.data.metrics["best_loss"] > 0
    assert parent.data.params["strategy"] == "freeze_thaw"
    files = {path.rsplit("/", 1)[1] for path in store.files if parent.info.run_id in path}
    assert files == {"study.json", "best.yaml", "report.html"}
    (report,) = [path for path in store.files if path.endswith(f"{parent.info.run_id}/artifacts/report.html")]
    assert b"<title>" in store.files[report]


def test_every_answer_is_lost_once(
    store: StubStore, url: str, deliver: Deliver, sessions: sessionmaker[Session], database_url: str
) -> None:
    lost = set[tuple[str, str]]()

    def lose(path: str, content: str) -> None:
        if (path, content) not in lost:
            lost.add((path, content))
            raise Refusal(500, "INTERNAL_ERROR", "the answer is lost")

    store.trouble = lose
    run_study(sessions)
    assert drain(deliver(url)) > 20  # every call fails the first time
    store.trouble = StubStore().trouble
    require_told(MlflowClient(url), database_url)
    assert [run["info"]["lifecycle_stage"] for run in store.runs.values()].count("active") == len(
        {tags_of(run)["hpo.run"] for run in store.runs.values()}
    )


def test_told_in_pieces_by_one_process_after_the_other(
    url: str,
    deliver: Deliver,
    sessions: sessionmaker[Session],
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delivery_module, "_BATCH_EVENTS", 7)
    run_study(sessions)
    while not deliver(url).turn():
        pass
    require_told(MlflowClient(url), database_url)


def test_a_fresh_process_makes_as_few_calls_as_it_can(
    store: StubStore, url: str, deliver: Deliver, sessions: sessionmaker[Session]
) -> None:
    run_study(sessions)
    drain(deliver(url))
    calls = Counter(store.calls)
    assert calls["runs/create"] == len(store.runs) == 10
    assert calls["runs/search"] == 1
    assert calls["metrics/get-history"] == 0
    assert calls["runs/log-batch"] == len(store.runs)


def test_a_run_that_somebody_deleted_stays_deleted_and_holds_nothing_up(
    store: StubStore,
    url: str,
    deliver: Deliver,
    sessions: sessionmaker[Session],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delivery_module, "_BATCH_EVENTS", 8)
    run_study(sessions)
    deliver(url).turn()
    client = MlflowClient(url)
    gone = next(run for run in runs_of(client) if run.data.tags.get("hpo.trial") == "0")
    client.delete_run(gone.info.run_id)
    drain(deliver(url))
    assert sorted(run.data.tags.get("hpo.trial", "-") for run in runs_of(client)) == ["-", *"12345678"]
    assert all(run.info.status != "RUNNING" for run in runs_of(client))
    assert "refuses a part of run" in caplog.text


def test_a_deleted_experiment_holds_the_events_back_with_a_remedy(
    store: StubStore,
    url: str,
    deliver: Deliver,
    sessions: sessionmaker[Session],
    database_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    MlflowClient(url).create_experiment("hpo")
    store.experiments["hpo"]["lifecycle_stage"] = "deleted"
    run_study(sessions)
    outbox = deliver(url)
    outbox.turn()
    assert "MLFLOW_EXPERIMENT_NAME" in caplog.text
    store.experiments["hpo"]["lifecycle_stage"] = "active"
    drain(outbox)
    require_told(MlflowClient(url), database_url)


def test_two_studies_one_after_the_other(
    url: str, deliver: Deliver, sessions: sessionmaker[Session], database_url: str
) -> None:
    outbox = deliver(url)
    run_study(sessions)
    drain(outbox)
    run_study(sessions, "t")
    drain(outbox)
    client = MlflowClient(url)
    require_told(client, database_url)
    require_told(client, database_url, "t")
    with sessions.begin() as session:
        cursors = [open_cursor(session, name, from_now=True) for name in ("another", "mlflow", "mlflow")]
    assert len({cursor.identity for cursor in cursors}) == 2


def test_the_adapters_of_the_best_go_along(
    store: StubStore, url: str, deliver: Deliver, sessions: sessionmaker[Session], tmp_path: Path
) -> None:
    study_id = run_study(sessions)
    with sessions.begin() as session:
        for number in range(9):
            ref = serving.write_snapshot(tmp_path / "snapshots", f"{study_id}/{number}/1000/1", examples_seen=1000)
            session.execute(
                update(Slice)
                .where(Slice.study_id == study_id, Slice.trial_number == number)
                .values(snapshots=[ref.model_dump()])
            )
    drain(deliver(url))
    runs = runs_of(MlflowClient(url))
    best = sorted(
        (run for run in runs if "hpo.trial" in run.data.tags and run.info.status == "FINISHED"),
        key=lambda run: run.data.metrics["eval_loss"],
    )
    with_adapter = {path.split("/")[1] for path in store.files if "/adapter/" in path}
    assert with_adapter == {run.info.run_id for run in best[:2]}
    (path,) = [
        path for path in store.files if path.endswith("adapter_model.safetensors") and best[0].info.run_id in path
    ]
    assert store.files[path] == serving.SNAPSHOT_FILES["adapter_model.safetensors"]
