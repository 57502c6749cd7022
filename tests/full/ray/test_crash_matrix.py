"""kill -9 of dispatcher or actor at every hand-over of the Ray executor, and what an orphaned actor keeps."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.orm import Session, sessionmaker

from tests.integration.test_crash_matrix import require_whole
from tests.ray_cluster import RayCluster
from tests.ray_crashing import Scene, crash
from trainer.common.failpoints import RayFailpoint

_ORPHAN_SECONDS = 15


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    started = RayCluster(tmp_path_factory.mktemp("cluster"), [1, 1])
    yield started
    started.close()


@pytest.fixture
def scene(database_url: str, sessions: sessionmaker[Session], cluster: RayCluster, tmp_path: Path) -> Iterator[Scene]:
    made = Scene(database_url, sessions, cluster, tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("point", RayFailpoint)
def test_a_kill_anywhere_breaks_nothing(scene: Scene, point: RayFailpoint) -> None:
    crash(scene, point)


def test_an_orphan_that_holds_a_result_waits_for_somebody_to_take_it(scene: Scene) -> None:
    study_id = scene.post()
    first = scene.start(step_seconds=0.4, orphan_seconds=_ORPHAN_SECONDS)
    scene.wait(scene.running, "a slice to run")
    first.kill()
    (actor,) = scene.cluster.actors()
    # The slice takes some seconds more, then its result waits for longer than an orphan without one would.
    waits_until = time.monotonic() + 2 * _ORPHAN_SECONDS
    while time.monotonic() < waits_until:
        assert actor.is_running()
        time.sleep(0.2)
    scene.start()
    scene.wait(lambda: scene.ended(study_id), "the end of the study")
    assert scene.causes() == set()
    require_whole(scene.sessions, scene.folder)


def test_an_orphan_that_holds_nothing_ends(scene: Scene) -> None:
    study_id = scene.post(trials=1)
    first = scene.start(orphan_seconds=_ORPHAN_SECONDS)
    scene.wait(lambda: scene.ended(study_id), "the end of the study")
    first.kill()
    scene.wait(lambda: not scene.cluster.actors(), "the actor to end")
