"""Every part killed on its own: the study ends like an undisturbed one."""

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import home, service, undisturbed
from tests.e2e.service import STUDY, Service
from tests.e2e.test_survival import facts

__all__ = ["home", "service", "undisturbed"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", ["worker", "dispatcher", "api", "postgres", "everything"])
def test_a_kill_changes_nothing(home: Path, undisturbed: list[dict[str, Any]], part: str) -> None:
    service = Service(home)
    service.up()
    with service.client() as client:
        client.create_study(STUDY)
    service.wait_for_reports("study", 4)
    service.kill(part)
    if part == "everything":
        service.wait(lambda: service.processes("everything") == [], 30, "everything to be gone")
        service.up()
    assert service.wait_for_end("study")["state"] == "completed"
    assert facts(service.trials("study")) == facts(undisturbed)
    assert service.down() == 0
    assert service.processes("everything") == []
