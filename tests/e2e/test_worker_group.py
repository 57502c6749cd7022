"""A study whose trials take two devices each: worker groups of two ranks, on CPU, through `hpo up`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.consistency.study import disagreements
from tests.e2e.service import STUDY, Service
from trainer.spec import SnapshotManifest

SPEC: dict[str, Any] = STUDY | {
    "metadata": {"name": "pairs"},
    "data": STUDY["data"] | {"max_train_examples": 48, "max_eval_examples": 16},
    "resources": {"gpus_per_trial": 2},
    "budget": {"max_trials": 3},
}


class TwoDevices(Service):
    """A service whose dispatcher has two devices."""

    def environment(self) -> dict[str, str]:
        return super().environment() | {"HPO_WORKERS": "2", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def service(home: Path) -> Iterator[TwoDevices]:
    service = TwoDevices(home)
    service.up()
    yield service
    assert service.down() == 0
    assert service.processes("everything") == []


def test_a_study_on_two_ranks_runs_to_its_end(service: TwoDevices) -> None:
    with service.client() as client:
        client.create_study(SPEC)
    assert service.wait_for_end("pairs")["state"] == "completed"
    assert disagreements(service.place(), "pairs") == []
    trials = service.trials("pairs")
    assert len(trials) == 3
    manifests = list((service.home / "snapshots").glob("*/*/**/manifest.json"))
    assert manifests
    for path in manifests:
        manifest = SnapshotManifest.model_validate_json(path.read_bytes())
        assert manifest.usage.devices == 2
        adapter = load_file(path.parent / "adapter_model.safetensors")
        assert {tensor.shape[0] for name, tensor in adapter.items() if "lora_A" in name} <= {4, 8, 16}
    assert any((path.parent / "eval_losses.safetensors").exists() for path in manifests)
