"""How an attempt ends when something goes wrong."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trainer.model import BaseModel
from trainer.residents import Residents
from trainer.slices import SliceRun
from trainer.snapshot import SnapshotStore
from trainer.spec import Outcome, Slice, SliceResult, TrialSpec
from trainer.stores.folder import FolderStore
from trainer.token_cache import TokenCache
from trainer.tokens import Batch

MakeSpec = Callable[..., TrialSpec]
Run = Callable[[TrialSpec], SliceResult]


@pytest.fixture
def run(token_cache: TokenCache, tmp_path: Path) -> Run:
    """Runs a slice of 16 examples in a worker of its own."""
    residents = Residents(torch.device("cpu"), 8, token_cache)

    def to_the_end(spec: TrialSpec) -> SliceResult:
        piece = Slice(slice_id=1, attempt=2, trial=spec, until_examples=16, snapshot_dir="1/1/16/2")
        attempt = SliceRun(piece, residents, SnapshotStore(FolderStore(tmp_path)), lambda _: None)
        while (result := attempt.tick()) is None:
            pass
        return result

    return to_the_end


def failing_badly(base: BaseModel, batch: Batch) -> torch.Tensor:
    raise RuntimeError("a kernel has a bug")


def test_what_nobody_foresaw_is_logged_with_its_place(
    run: Run, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(BaseModel, "nll", failing_badly)
    result = run(make_spec())
    assert (result.outcome, result.message) == (Outcome.INFRA_ERROR, "RuntimeError: a kernel has a bug")
    assert "slice 1, attempt 2" in caplog.text
    assert "in failing_badly" in caplog.text


def test_facts_about_the_trial_are_told_and_not_logged(
    run: Run, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def out_of_memory(base: BaseModel, batch: Batch) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(BaseModel, "nll", out_of_memory)
    assert run(make_spec()).outcome is Outcome.OOM
    monkeypatch.undo()
    assert run(make_spec(target_modules="no_such_module")).outcome is Outcome.USER_ERROR
    assert not caplog.text
