"""A worker takes a step twice on every base that it warms, and says whether the bits were the same."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.data.batches import Batch
from trainer.data.token_cache import TokenCache
from trainer.model.base_model import BaseModel
from trainer.snapshots.snapshot import SnapshotStore
from trainer.snapshots.stores.folder import FolderStore
from trainer.spec import Outcome, Slice, SliceResult, TrialSpec
from trainer.worker.repeatability import is_repeatable
from trainer.worker.resident_trials import Residents
from trainer.worker.slice_run import SliceRun

MakeSpec = Callable[..., TrialSpec]
Run = Callable[..., SliceResult]


@pytest.fixture(autouse=True)
def _kernels() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def residents(token_cache: TokenCache) -> Residents:
    return Residents(torch.device("cpu"), 8, token_cache, repeats_steps=True)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def to_the_end(residents: Residents, spec: TrialSpec, slice_id: int = 1) -> SliceResult:
        where = f"1/{slice_id}/16/1"
        piece = Slice(slice_id=slice_id, attempt=1, trial=spec, until_examples=16, snapshot_dir=where)
        attempt = SliceRun(piece, residents, SnapshotStore(FolderStore(tmp_path)), lambda _: None)
        while (result := attempt.tick()) is None:
            pass
        return result

    return to_the_end


def test_it_is_found_out_once_for_a_base_and_changes_no_loss(
    run: Run, residents: Residents, make_spec: MakeSpec, token_cache: TokenCache
) -> None:
    spec = make_spec(lora_dropout=0.1, warmup_ratio=0.5)
    first, second = (run(residents, spec.model_copy(), number) for number in (1, 2))
    assert (first.outcome, first.repeatable, second.repeatable) == (Outcome.DONE, True, None)
    alone = run(Residents(torch.device("cpu"), 8, token_cache), spec, 3)
    assert (alone.repeatable, alone.eval_loss) == (None, first.eval_loss)
    assert not first.notices
    other = run(residents, make_spec(dtype="bfloat16"), 4)
    assert (other.dtype, other.repeatable) == ("bfloat16", True)


def test_a_step_that_differs_in_its_last_bit_is_told(
    run: Run, residents: Residents, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, calls = BaseModel.nll, iter(range(1000))

    def inexact(base: BaseModel, batch: Batch) -> torch.Tensor:
        return exact(base, batch) * (1 + 1e-6 * next(calls))

    monkeypatch.setattr(BaseModel, "nll", inexact)
    result = run(residents, make_spec())
    assert (result.outcome, result.repeatable) == (Outcome.DONE, False)
    assert [notice.kind for notice in result.notices] == ["not_repeatable"]
    assert "the same training step gave other bits" in result.notices[0].message


@pytest.mark.parametrize("refused_at", [1, 4])
def test_an_operation_without_a_repeatable_kernel_ends_no_trial(
    run: Run, residents: Residents, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, refused_at: int
) -> None:
    """Whether it is met in the step that is tried first (one micro-batch) or only later."""
    exact, calls = BaseModel.nll, iter(range(1000))

    def refusing(base: BaseModel, batch: Batch) -> Any:
        if next(calls) >= refused_at and not torch.is_deterministic_algorithms_warn_only_enabled():
            raise RuntimeError("some_cuda does not have a deterministic implementation, but you set it")
        return exact(base, batch)

    monkeypatch.setattr(BaseModel, "nll", refusing)
    torch.use_deterministic_algorithms(True)
    result = run(residents, make_spec())
    assert (result.outcome, result.examples_seen, result.repeatable) == (Outcome.DONE, 16, False)
    assert "not_repeatable" in {notice.kind for notice in result.notices}


def test_a_step_that_cannot_be_taken_says_nothing(
    run: Run, residents: Residents, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BaseModel, "nll", lambda base, batch: torch.full((4,), float("nan"), requires_grad=True))
    result = run(residents, make_spec())
    assert (result.outcome, result.repeatable) == (Outcome.DIVERGED, None)


class OutOfMemory:
    """An engine whose first step does not fit the device."""

    evicted = 0

    def admit(self, *_: object) -> object:
        return object()

    def advance(self, *_: object) -> Iterator[object]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def evict(self, _: object) -> None:
        self.evicted += 1


def test_memory_that_runs_out_is_left_to_the_step_that_counts_but_ends_a_group(make_spec: MakeSpec) -> None:
    """The other ranks of a group wait in the step; that it ended for want of memory halves the micro-batch."""
    engine: Any = OutOfMemory()
    assert is_repeatable(engine, make_spec(), 8) is None
    assert engine.evicted == 1
    with pytest.raises(torch.OutOfMemoryError):
        is_repeatable(engine, make_spec(ranks=2), 8)
    assert engine.evicted == 1  # all ranks evict together
