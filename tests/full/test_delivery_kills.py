"""kill -9 of the worker and the dispatcher in the middle of a delivery: it goes on and ends once."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from hpo_service.core.settings import Settings
from hpo_service.local.supervisor import database_url
from hpo_service.storage.database import make_engine, session_factory
from hpo_service.storage.tables import Event
from tests.e2e.conftest import home
from tests.e2e.service import STUDY, Service

__all__ = ["home"]

Json = dict[str, Any]
ONE_TRIAL: Json = {
    **STUDY,
    "space": STUDY["space"] | {"epochs": 2.0},
    "baseline": None,
    "enqueue": [{"learning_rate": 5e-3, "lora_r": 8, "lora_dropout": 0.1}],
    "search": {"strategy": "none", "seed": 7, "deterministic": True},
    "data_checks": {"enabled": False},
    "budget": {"max_trials": 1},
}


def delivery(service: Service) -> Json:
    with service.client() as client:
        found: Json = client.get("/v1/deliveries/1")
    return found


def runs(found: Json, kind: str) -> bool:
    return any((step["kind"], step["state"]) == (kind, "running") for step in found["steps"])


def events(service: Service) -> list[str]:
    engine = make_engine(database_url(Settings(home=service.home)), application_name="test")
    with session_factory(engine)() as session:
        kinds = list(session.scalars(select(Event.kind).where(Event.kind.startswith("delivery.")).order_by(Event.id)))
    engine.dispose()
    return [kind.removeprefix("delivery.") for kind in kinds]


@pytest.mark.timeout(900)
def test_a_delivery_survives_its_worker_and_its_dispatcher(home: Path) -> None:
    service = Service(home)
    service.up()
    with service.client() as client:
        client.create_study(ONE_TRIAL)
        assert service.wait_for_end("study")["state"] == "completed"
        client.promote("study", "bot")
        client.deliver("bot", merge=True, retrain=True)

    def trains() -> bool:
        found = delivery(service)
        return runs(found, "train_final") and found["steps"][0]["progress"].get("examples_seen", 0) > 0

    service.wait(trains, 120, "the training to get on")
    service.kill("worker")
    service.wait(lambda: runs(delivery(service), "merge"), 180, "the merge to run")
    service.kill("dispatcher")
    service.wait(lambda: delivery(service)["state"] in ("completed", "failed"), 180, "the end of the delivery")

    made = delivery(service)
    assert made["state"] == "completed", made["message"]
    training, merge = made["steps"]
    assert training["failures_by_cause"] == {"worker_died": 1}
    assert (training["attempt"], merge["attempt"]) == (2, 2)
    assert made["losses"]["loss"] == made["losses"]["promoted_loss"]
    assert events(service) == ["started", "step", "step", "completed"]
    folder = home / "snapshots" / "deliveries" / "1"
    kept = [artifact["path"] for artifact in made["artifacts"]]
    assert kept == [
        str(path.relative_to(home / "snapshots")) for path in (*folder.glob("train/*/*"), *folder.glob("merged/*/*"))
    ]
    fetched = service.run("delivery", "fetch", "1", "merged", str(home.parent / "model"))
    assert fetched.returncode == 0, fetched.stderr
    weights = [folder / "model.safetensors" for folder in (home.parent / "model", home / "snapshots" / kept[1])]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    absent = service.run("delivery", "fetch", "1", "q4_k_m", str(home.parent / "q4"))
    assert (absent.returncode, "it has adapter, merged" in absent.stderr) == (1, True)
    assert service.down() == 0
    assert service.processes("everything") == []
