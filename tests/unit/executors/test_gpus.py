"""Which GPU each local worker is told to compute on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpo_service.core.settings import Settings
from hpo_service.dispatcher.workers import executor_factory
from hpo_service.dispatcher.workers.executor_factory import local_workers
from hpo_service.executors import gpus
from hpo_service.executors.gpus import VARIABLE, visible_gpus
from hpo_service.executors.worker_process import worker_environment
from tests.unit.trainer.accounting.test_nvml import FIRST, build

ROOT = Path(__file__).parents[3]
SECOND = "GPU-11111111-1111-1111-1111-111111111111"
PARTS = ("MIG-22222222-2222-2222-2222-222222222222", "MIG-33333333-3333-3333-3333-333333333333")


def seen(tmp_path: Path, state: str) -> tuple[str, ...]:
    """What the driver shows to a process that finds one with two GPUs, called 0 and 1 whatever they are outside."""
    folder = build(tmp_path, "new")
    (tmp_path / "state").write_text(state)
    command = [sys.executable, "-c", "from hpo_service.executors.gpus import driver_gpus; print(*driver_gpus())"]
    environment = {"LD_LIBRARY_PATH": str(folder), "FAKE_NVML": str(tmp_path / "state"), "PYTHONPATH": str(ROOT)}
    said = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True).stdout
    return tuple(said.split())


def test_the_driver_names_gpus_by_uuid_and_the_parts_of_one_that_is_cut(tmp_path: Path) -> None:
    assert seen(tmp_path, "") == (FIRST, SECOND)
    assert seen(tmp_path, "0.mig=1\n") == (*PARTS, SECOND)


def test_without_a_driver_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "driver_gpus", tuple)
    assert visible_gpus({}) is None
    assert VARIABLE not in worker_environment((0,), {"PATH": "/"}, gpus=None)


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        ("4,5", ("4", "5")),
        (" 4, 5", ("4", "5")),
        (f"{FIRST},{SECOND}", (FIRST, SECOND)),
        (",".join(PARTS), PARTS),
        ("", ()),
        ("-1", ()),
        ("0,-1,1", ("0",)),
        ("NoDevFiles", ()),
    ],
)
def test_a_list_in_the_environment_is_taken_at_its_word(
    listed: str, found: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "driver_gpus", lambda: (FIRST, SECOND))
    assert visible_gpus({VARIABLE: listed}) == found


@pytest.mark.parametrize(
    ("known", "devices", "told"),
    [
        ((FIRST, SECOND), (1,), SECOND),
        ((FIRST, SECOND), (0, 1), f"{FIRST},{SECOND}"),
        (("4", "5"), (1,), "5"),
        (("4", "5"), (2,), "4"),
        ((), (0,), ""),
    ],
)
def test_every_worker_is_told_its_own(known: tuple[str, ...], devices: tuple[int, ...], told: str) -> None:
    """Hidden GPUs stay hidden; more workers than GPUs share them."""
    parent = {"PATH": "/", VARIABLE: "4,5", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    environment = worker_environment(devices, parent, gpus=known)
    assert environment[VARIABLE] == told
    assert environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


@pytest.mark.parametrize(
    ("shown", "setting", "count"),
    [((FIRST, SECOND), None, 2), (None, None, 1), ((), None, 1), ((FIRST, SECOND), 1, 1), (None, 3, 3)],
)
def test_there_are_as_many_workers_as_gpus_unless_told_otherwise(
    shown: tuple[str, ...] | None, setting: int | None, count: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(executor_factory, "visible_gpus", lambda environment: shown)
    monkeypatch.delenv("HPO_WORKERS", raising=False)
    workers = local_workers(Settings(workers=setting, home=tmp_path))
    assert (workers.count, workers.gpus) == (count, shown)
