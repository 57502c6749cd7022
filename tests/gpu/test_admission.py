"""Memory on a GPU: the prediction against what was allocated, and a device that really runs full."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trainer.data.token_cache import TokenCache
from trainer.snapshots.snapshot import SnapshotStore
from trainer.snapshots.stores.folder import FolderStore
from trainer.spec import Outcome, Slice, SliceResult, TrialSpec
from trainer.worker.resident_trials import Residents
from trainer.worker.slice_run import SliceRun

pytestmark = pytest.mark.gpu

MakeSpec = Callable[..., TrialSpec]


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(FolderStore(tmp_path))


def a_slice(spec: TrialSpec, number: int) -> Slice:
    return Slice(slice_id=number, attempt=1, trial=spec, until_examples=74, snapshot_dir=f"1/{number}/74/1")


def run(residents: Residents, store: SnapshotStore, slice_: Slice) -> SliceResult:
    running, result = SliceRun(slice_, residents, store, lambda _: None), None
    while result is None:
        result = running.tick()
    return result


def test_the_prediction_holds(
    token_cache: TokenCache, make_spec: MakeSpec, store: SnapshotStore, cuda: torch.device
) -> None:
    """`max_memory_allocated` against the prediction; a tiny model is mostly cuBLAS' workspace, so within 64 MiB."""
    residents = Residents(cuda, 8, token_cache)
    result = run(residents, store, a_slice(make_spec(dtype="bfloat16"), 1))
    (notice,) = (notice for notice in result.notices if notice.kind == "memory_prediction")
    assert notice.values["measured_bytes"] - notice.values["predicted_bytes"] < 64 * 2**20


def test_a_real_shortage_is_survived(
    token_cache: TokenCache, make_spec: MakeSpec, store: SnapshotStore, cuda: torch.device
) -> None:
    """A prediction that is far too low meets a device that is nearly full: halved or reported, and the worker lives."""
    residents = Residents(cuda, 8, token_cache)
    assert run(residents, store, a_slice(make_spec(), 1)).outcome is Outcome.DONE
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    hog = torch.empty(free - 2 * 2**20, dtype=torch.uint8, device="cuda")
    result = run(residents, store, a_slice(make_spec(seed=1, max_length=512, eval_batch=11), 2))
    del hog
    torch.cuda.empty_cache()
    assert result.outcome in (Outcome.DONE, Outcome.OOM)
    assert run(residents, store, a_slice(make_spec(seed=2), 3)).outcome is Outcome.DONE
