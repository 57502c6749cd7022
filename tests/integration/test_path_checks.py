"""Every worker is asked what it sees, and nobody answers for another."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.cli import node_checks
from hpo_service.cli.node_checks import NodeCheck
from hpo_service.client.http import Client
from hpo_service.dispatcher.loop import Dispatcher
from hpo_service.executors.base import Work
from hpo_service.executors.fake import FakeExecutor
from tests import serving
from tests.dispatching import loss_of, turn_until
from trainer.commands.check_paths import look
from trainer.snapshots.stores.folder import FolderStore
from trainer.snapshots.stores.marker import leave_marker
from trainer.spec import CheckPaths, Job, JobResult, Outcome

Sessions = sessionmaker[Session]


class Nodes(FakeExecutor):
    """Workers that answer path checks as real ones do; each of `views` is what a node makes of the task's paths."""

    def __init__(self, workers: int) -> None:
        super().__init__(loss_of, workers=workers)
        self.views: dict[str, Callable[[CheckPaths], CheckPaths]] = {}
        self.holders: dict[tuple[int, int], str] = {}
        self.answer = self._look

    def submit(self, work: Work, worker: str) -> None:
        self.holders[work.token] = worker
        super().submit(work, worker)

    def _look(self, job: Job) -> JobResult:
        assert isinstance(job.task, CheckPaths)
        assert job.task.worker == self.holders[job.token]
        view = self.views.get(job.task.worker)
        report = look(view(job.task) if view else job.task).model_dump(mode="json")
        return JobResult(job_id=job.job_id, attempt=job.attempt, outcome=Outcome.DONE, report=report)


def not_mounted(task: CheckPaths) -> CheckPaths:
    paths = tuple(f"{path}-not-mounted" for path in task.paths)
    return task.model_copy(update={"snapshots": f"{task.snapshots}-not-mounted", "paths": paths})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    serving.make_inputs(tmp_path)
    leave_marker(FolderStore(tmp_path / "home" / "snapshots"), 0)
    return tmp_path


def start(sessions: Sessions, root: Path, workers: int, *, refused: bool = False) -> tuple[Dispatcher, Nodes]:
    nodes = Nodes(workers)
    dispatcher = Dispatcher(sessions, nodes, snapshots=root / "home" / "snapshots", must_see_store=refused)
    for _ in range(3):
        dispatcher.turn()
    return dispatcher, nodes


def answers(client: TestClient, jobs: list[int]) -> list[serving.Json]:
    return [client.get(f"/v1/path-checks/{job}").json() for job in jobs]


def test_each_worker_answers_for_itself(client: TestClient, sessions: Sessions, root: Path) -> None:
    assert client.post("/v1/studies", json=serving.spec(data_checks={"enabled": False})).status_code == 201
    dispatcher, nodes = start(sessions, root, workers=2)
    nodes.views[nodes.workers()[1]] = not_mounted
    asked = client.post("/v1/path-checks")
    assert asked.status_code == 202
    checks = asked.json()["checks"]
    assert sorted(check["worker"] for check in checks) == sorted(nodes.workers())
    jobs = [check["job"] for check in checks]
    assert {check["state"] for check in answers(client, jobs)} == {"pending"}
    turn_until(dispatcher, lambda: all(check["state"] == "done" for check in answers(client, jobs)))
    by_worker = {check["worker"]: check for check in answers(client, jobs)}
    sees, blind = (by_worker[worker] for worker in nodes.workers())
    assert sees["problems"] == []
    seen = {path["path"] for path in sees["report"]["paths"]}
    assert {str(root), str(root / "model"), str(root / "train.jsonl"), str(root / "eval.jsonl")} == seen
    assert sees["report"]["snapshots_free_bytes"] > 0
    assert len(blind["problems"]) == len(seen) + 1
    assert "No such file" in blind["problems"][0]
    assert "snapshot store" in blind["problems"][-1]


def test_a_worker_that_is_gone_cannot_answer(client: TestClient, sessions: Sessions, root: Path) -> None:
    dispatcher, nodes = start(sessions, root, workers=1)
    (check,) = client.post("/v1/path-checks").json()["checks"]
    nodes.kill(nodes.workers()[0])
    turn_until(dispatcher, lambda: answers(client, [check["job"]])[0]["state"] == "failed")
    assert "is gone" in answers(client, [check["job"]])[0]["message"]


def test_another_store_is_told_apart_by_its_marker(client: TestClient, sessions: Sessions, root: Path) -> None:
    """The path is right and the disk another one, as where something was mounted over it."""
    dispatcher, nodes = start(sessions, root, workers=1)
    other = FolderStore(root / "other")
    leave_marker(other, 0)
    nodes.views[nodes.workers()[0]] = lambda task: task.model_copy(update={"snapshots": other.location})
    (check,) = client.post("/v1/path-checks").json()["checks"]
    turn_until(dispatcher, lambda: answers(client, [check["job"]])[0]["state"] == "done")
    (problem,) = answers(client, [check["job"]])[0]["problems"]
    assert "finds another one" in problem


def test_checks_of_others_are_not_found(client: TestClient, sessions: Sessions, root: Path) -> None:
    start(sessions, root, workers=1)
    (check,) = client.post("/v1/path-checks").json()["checks"]
    other = serving.make_key(sessions, serving.make_project(sessions, "other"))
    answer = client.get(f"/v1/path-checks/{check['job']}", headers=serving.bearer(other))
    assert answer.status_code == 404


@pytest.fixture
def doctor(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> Callable[[Dispatcher], list[NodeCheck]]:
    """What `hpo doctor` finds out about nodes while a dispatcher is at work."""

    def check(dispatcher: Dispatcher) -> list[NodeCheck]:
        api = Client("http://testserver", None)
        monkeypatch.setattr(api, "_http", client)
        monkeypatch.setattr(node_checks, "connect", lambda: api)
        monkeypatch.setattr("hpo_service.cli.node_checks.time.sleep", lambda _: dispatcher.turn())
        return node_checks.check_nodes()

    return check


def test_the_doctor_names_what_a_node_does_not_see(
    sessions: Sessions, root: Path, doctor: Callable[[Dispatcher], list[NodeCheck]]
) -> None:
    dispatcher, nodes = start(sessions, root, workers=2)
    nodes.views[nodes.workers()[1]] = not_mounted
    sees, blind = sorted(doctor(dispatcher), key=lambda check: check.worker)
    assert (sees.ok, blind.ok) == (True, False)
    assert "sees the snapshot store and all paths" in sees.detail
    assert f"{root}-not-mounted: No such file or directory" in blind.detail


def test_the_doctor_names_a_node_that_was_refused(
    sessions: Sessions, root: Path, doctor: Callable[[Dispatcher], list[NodeCheck]]
) -> None:
    dispatcher, _ = start(sessions, root, workers=1, refused=True)
    (check,) = doctor(dispatcher)
    assert (check.node, check.ok) == ("fake", False)
    assert "does not see the snapshot store" in check.detail
