"""The service as a user starts it, with HPO_EXECUTOR=ray: the study ends as it does on local workers, bit for bit."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import home, service, undisturbed
from tests.e2e.service import STUDY, Service
from tests.e2e.test_survival import facts
from tests.ray_cluster import RESOURCE, RayCluster, environment

__all__ = ["home", "service", "undisturbed"]
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    started = RayCluster(tmp_path_factory.mktemp("cluster"), [1])
    yield started
    started.close()


class RayService(Service):
    """`hpo up` with a cluster for its workers."""

    def __init__(self, home: Path, cluster: RayCluster) -> None:
        super().__init__(home)
        self._settings = {
            "HPO_EXECUTOR": "ray",
            "RAY_ADDRESS": cluster.address,
            "HPO_RAY_RESOURCE": RESOURCE,
            # As many as a lone local worker has: part of what decides the last bits.
            "HPO_THREADS_PER_WORKER": str(os.cpu_count()),
        }

    def environment(self) -> dict[str, str]:
        return super().environment() | environment() | self._settings


def test_kills_change_nothing(home: Path, undisturbed: list[dict[str, Any]], cluster: RayCluster) -> None:
    service = RayService(home, cluster)
    service.up()
    with service.client() as client:
        client.create_study(STUDY)
    service.wait_for_reports("study", 3)
    service.kill("dispatcher")
    service.wait_for_reports("study", 6)
    for actor in cluster.actors():
        actor.kill()
    assert service.wait_for_end("study")["state"] == "completed"
    disturbed = service.trials("study")
    assert facts(disturbed) == facts(undisturbed)
    assert service.down() == 0
    assert cluster.actors() != []
