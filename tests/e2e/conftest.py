"""One running service for all tests of this folder that do not kill it, and a finished study to compare with."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from tests.e2e.service import STUDY, Service


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that the database's user can traverse."""
    folder = Path(mkdtemp(prefix="hpo-e2e-"))
    folder.chmod(0o755)
    yield folder / "home"
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """A service with the study `undisturbed` finished in it."""
    folder = Path(mkdtemp(prefix="hpo-e2e-"))
    folder.chmod(0o755)
    service = Service(folder / "home")
    service.up()
    with service.client() as client:
        client.create_study(STUDY | {"metadata": {"name": "undisturbed"}})
    assert service.wait_for_end("undisturbed")["state"] == "completed"
    yield service
    assert service.down() == 0
    assert service.processes("everything") == []
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def undisturbed(service: Service) -> list[dict[str, Any]]:
    """Trials of a study that nothing happened to."""
    return service.trials("undisturbed")
