"""kill -9 at a hand-over of the Ray executor: whoever comes next goes on, and no invariant is broken."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from hpo_service.core.messages import IntentKind
from hpo_service.core.study_rules import TERMINAL, Cause
from hpo_service.storage.tables import DEFAULT_PROJECT_ID, Attempt, Intent, Slice, Worker
from tests.dispatching import ask, expire_lease, state_of
from tests.integration.test_crash_matrix import post, require_whole
from tests.ray_cluster import RayCluster
from tests.ray_dispatching import DispatcherProcess, RayDispatcher
from trainer.common.failpoints import RayFailpoint

_SECONDS = 120.0
#: long enough for a test to do something while a slice runs
_SLOW_STEP_SECONDS = 0.4
_GROUP: dict[str, Any] = {"resources": {"gpus_per_trial": 2}}


@dataclass
class Scene:
    """A database, a cluster, and the dispatchers that come and go."""

    url: str
    sessions: sessionmaker[Session]
    cluster: RayCluster
    folder: Path
    started: list[DispatcherProcess] = field(default_factory=list)

    def start(self, failpoints: str = "", *, step_seconds: float = 0.002, **told: Any) -> DispatcherProcess:
        """A dispatcher that does not wait for the lease of one that was killed."""
        expire_lease(self.sessions)
        described = RayDispatcher(
            url=self.url,
            address=self.cluster.address,
            folder=str(self.folder),
            step_seconds=step_seconds,
            **told,
        )
        self.started.append(DispatcherProcess(described, failpoints))
        return self.started[-1]

    def post(self, trials: int = 2, **changes: Any) -> int:
        """A study with one slice at a time."""
        return post(self.sessions, budget={"max_trials": trials, "max_parallel": 1}, **changes)

    def ended(self, study_id: int) -> bool:
        """Whether the study has."""
        return state_of(self.sessions, study_id) in TERMINAL

    def running(self) -> str | None:
        """The worker of a slice that has begun to move."""
        with self.sessions() as session:
            query = select(Worker.name).join(Attempt, Attempt.worker_id == Worker.id)
            query = query.join(Slice, (Slice.id == Attempt.slice_id) & (Slice.attempt == Attempt.attempt))
            return session.scalars(query.where(Slice.state == "running", Slice.progress != {})).first()

    def causes(self) -> set[str]:
        """Why attempts were lost."""
        with self.sessions() as session:
            return {cause for cause in session.scalars(select(Attempt.cause)) if cause}

    def said(self) -> str:
        """By dispatchers and actors."""
        return "".join(one.log.read_text(errors="replace") for one in self.started) + self.cluster.logs()

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Wait until it holds."""
        deadline = time.monotonic() + _SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"waited {_SECONDS:g} s for {what}\n{self.said()[-6000:]}"
            time.sleep(0.05)

    def close(self) -> None:
        """End dispatchers and workers; the cluster stays."""
        for process in self.started:
            process.kill()
        for actor in self.cluster.actors():
            actor.kill()
        self.wait(lambda: not self.cluster.actors(), "the actors to end")


def crash(scene: Scene, point: RayFailpoint) -> None:
    """Run a study through a kill at the failpoint, and require that nothing of it can be seen but an attempt more."""
    in_group = point in (RayFailpoint.GROUP_BEFORE_MAKE, RayFailpoint.GROUP_AFTER_MAKE)
    study_id = scene.post(**_GROUP if in_group else {})
    if point.startswith("host."):
        scene.start(actor_failpoints=str(point))
        allowed = {Cause.WORKER_DIED}
    else:
        process = _dying(scene, study_id, point)
        scene.wait(lambda: process.process.poll() is not None, "the dispatcher to die")
        scene.start()
        allowed = {Cause.DISPATCHER_LOST} if point.startswith("ray.submit.") else set()
    scene.wait(lambda: scene.ended(study_id), "the end of the study")
    assert f"failpoint {point}: kill" in scene.said()
    assert scene.causes() <= allowed
    require_whole(scene.sessions, scene.folder)


def _dying(scene: Scene, study_id: int, point: RayFailpoint) -> DispatcherProcess:
    """A dispatcher that will come by the failpoint."""
    if point.startswith("ray.attach."):
        first = scene.start(step_seconds=_SLOW_STEP_SECONDS)
        scene.wait(scene.running, "a slice to run")
        first.kill()
        return scene.start(str(point))
    asked = point.startswith(("ray.stop.", "ray.end."))
    process = scene.start(str(point), step_seconds=_SLOW_STEP_SECONDS if asked else 0.002)
    if asked:
        scene.wait(scene.running, "a slice to run")
    if point.startswith("ray.stop."):
        ask(scene.sessions, study_id, IntentKind.CANCEL)
    if point.startswith("ray.end."):
        _drain(scene, str(scene.running()))
    return process


def _drain(scene: Scene, worker: str) -> None:
    with scene.sessions.begin() as session:
        payload = {"worker": worker, "reason": ""}
        session.add(Intent(project_id=DEFAULT_PROJECT_ID, kind=str(IntentKind.WORKER_DRAIN), payload=payload))
