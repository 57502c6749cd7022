"""Kill anything: the study goes on from its snapshots and ends like an undisturbed one, bitwise equal."""

from pathlib import Path
from typing import Any

from tests.consistency.study import disagreements
from tests.e2e.service import STUDY, Service


def facts(trials: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What must not depend on what happened to the service."""
    return [(trial["number"], trial["state"], trial["parameters"], trial["losses"]) for trial in trials]


def test_a_study_survives_the_death_of_every_part(home: Path, undisturbed: list[dict[str, Any]]) -> None:
    service = Service(home)
    service.up()
    with service.client() as client:
        client.create_study(STUDY)
    for reports, part in enumerate(("worker", "api", "dispatcher", "postgres"), start=1):
        service.wait_for_reports("study", 2 * reports)
        service.kill(part)
    service.wait(service.ready, 60, "the service to recover by itself")
    service.wait_for_reports("study", 10)
    service.kill("everything")
    service.wait(lambda: service.processes("everything") == [], 30, "everything to be gone")
    service.up()
    study = service.wait_for_end("study")
    disturbed = service.trials("study")
    assert disagreements(service.place(), "study") == []
    assert service.down() == 0
    assert service.processes("everything") == []
    assert study["state"] == "completed"
    assert facts(disturbed) == facts(undisturbed)
    assert sum(trial["attempts"] for trial in disturbed) > sum(trial["attempts"] for trial in undisturbed)


def test_ctrl_c_keeps_the_work_of_the_running_slice(home: Path, undisturbed: list[dict[str, Any]]) -> None:
    service = Service(home)
    service.up()
    with service.client() as client:
        client.create_study(STUDY)
    service.wait_for_reports("study", 3)
    assert service.down() == 0
    assert service.processes("everything") == []
    service.up()
    service.wait_for_end("study")
    disturbed = service.trials("study")
    assert disagreements(service.place(), "study") == []
    assert service.down() == 0
    assert facts(disturbed) == facts(undisturbed)
