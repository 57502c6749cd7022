"""Energy, health, memory and utilization on a real GPU."""

import time
from pathlib import Path

import pytest
import torch

from tests.slices import a_slice
from trainer.accounting.devices import device_name, device_uuids
from trainer.accounting.meter import DeviceUse, Meter
from trainer.accounting.nvml import Gpus
from trainer.accounting.peaks import peak_flops_per_second
from trainer.data.token_cache import TokenCache
from trainer.snapshots.snapshot import SnapshotStore
from trainer.snapshots.stores.folder import FolderStore
from trainer.spec import Outcome, SliceResult, Usage
from trainer.worker.resident_trials import Residents
from trainer.worker.slice_run import SliceRun

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("cuda")]


@pytest.fixture(scope="module")
def device(cuda: torch.device) -> torch.device:
    return cuda


@pytest.fixture(scope="module")
def gpus(device: torch.device) -> Gpus:
    return Gpus(device_uuids(device))


def multiply(device: torch.device, seconds: float) -> tuple[float, float]:
    """(FLOPs, seconds) of large bfloat16 products for about so long."""
    size = 8192
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    (a @ b).sum().item()
    start, flops = time.perf_counter(), 0.0
    while time.perf_counter() - start < seconds:
        for _ in range(10):
            a @ b
            flops += 2.0 * size**3
        torch.cuda.synchronize()
    return flops, time.perf_counter() - start


def test_the_energy_counter_tells_the_power_of_the_gpu(device: torch.device, gpus: Gpus) -> None:
    before = gpus.energy_joules()
    if before is None:
        pytest.skip("this GPU does not count its energy alone (MIG, or before Volta)")
    _, seconds = multiply(device, 2.0)
    after = gpus.energy_joules()
    assert after is not None
    assert 10 < (after - before) / seconds < 2500  # watts


def test_health_is_read(device: torch.device, gpus: Gpus) -> None:
    (health,) = gpus.health()
    assert health.uuid.removeprefix("GPU-") == device_uuids(device)[0]
    assert not health.lost
    assert health.temperature_celsius is None or 5 < health.temperature_celsius < 120


def test_peak_memory_is_the_slices_own(device: torch.device, gpus: Gpus) -> None:
    use = DeviceUse(device, gpus)
    small, big, late = Meter(use), Meter(use), Meter(use)
    for meter, mib in ((small, 0), (big, 256), (late, 32)):
        with meter.timed("train"):
            torch.empty(mib * 2**20, dtype=torch.uint8, device=device)
    peaks = [meter.usage().peak_memory_bytes for meter in (small, big, late)]
    assert [peak - peaks[0] for peak in peaks] == [0, 256 * 2**20, 32 * 2**20]


def test_products_reach_a_good_part_of_the_peak_and_never_more(device: torch.device) -> None:
    peak = peak_flops_per_second(device_name(device), "bfloat16")
    if peak is None:
        pytest.skip(f"{device_name(device)} is not in the table of peaks")
    flops, seconds = multiply(device, 2.0)
    sums = Usage(train_flops=flops, train_seconds=seconds, peak_flops_per_second=peak).sums()
    assert 0.3 < (sums.mfu() or 0.0) < 1.05


def test_a_slice_accounts_for_itself(device: torch.device, tmp_path: Path) -> None:
    residents = Residents(device, 1, TokenCache(tmp_path / "tokens", 1))
    run = SliceRun(a_slice(until=64), residents, SnapshotStore(FolderStore(tmp_path / "snapshots")), lambda _: None)
    result: SliceResult | None = None
    while result is None:
        result = run.tick()
    assert result.outcome is Outcome.DONE, result.message
    usage, sums = result.usage, result.usage.sums()
    assert usage.peak_flops_per_second == peak_flops_per_second(result.device, "float32")
    assert (sums.mfu() is None) == (usage.peak_flops_per_second is None)
    assert 0 <= (sums.mfu() or 0.0) < 1
    assert min(usage.tokens, usage.train_seconds, usage.data_seconds, usage.peak_memory_bytes) > 0
    assert (usage.energy_joules is None) == (Gpus(device_uuids(device)).energy_joules() is None)
