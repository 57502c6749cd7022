"""A few of the kills of `tests/full/ray/test_crash_matrix.py`, which has them all."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.orm import Session, sessionmaker

from tests.ray_cluster import RayCluster
from tests.ray_crashing import Scene, crash
from trainer.common.failpoints import RayFailpoint


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    started = RayCluster(tmp_path_factory.mktemp("cluster"), [1])
    yield started
    started.close()


@pytest.mark.parametrize("point", [RayFailpoint.RESULT_BEFORE_EVENT, RayFailpoint.HOST_RESULT_AFTER_KEEP])
def test_a_kill_breaks_nothing(
    database_url: str, sessions: sessionmaker[Session], cluster: RayCluster, tmp_path: Path, point: RayFailpoint
) -> None:
    scene = Scene(database_url, sessions, cluster, tmp_path)
    try:
        crash(scene, point)
    finally:
        scene.close()
