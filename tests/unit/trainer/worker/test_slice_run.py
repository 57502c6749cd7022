"""How an attempt ends when something goes wrong."""

import json
import logging
import shutil
from collections.abc import Callable
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
from trainer.worker.resident_trials import Residents
from trainer.worker.slice_run import SliceRun

MakeSpec = Callable[..., TrialSpec]
Run = Callable[..., SliceResult]


@pytest.fixture
def run(token_cache: TokenCache, tmp_path: Path) -> Run:
    """Runs a slice of 16 examples of a spec, or one that differs in what is given, in a worker of its own."""

    def to_the_end(spec: TrialSpec, **changes: Any) -> SliceResult:
        residents = Residents(torch.device("cpu"), 8, token_cache)
        piece = Slice(slice_id=1, attempt=2, trial=spec, until_examples=16, snapshot_dir="1/1/16/2")
        piece = piece.model_copy(update=changes)
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


@pytest.fixture
def rows(row_files: tuple[Path, Path], tmp_path: Path) -> Path:
    """Training rows of this test alone."""
    return Path(shutil.copy(row_files[0], tmp_path / "train.jsonl"))


def append_a_row(rows: Path) -> str:
    """Add a copy of the first row; what is to be said of it."""
    content = rows.read_text()
    rows.write_text(content + content.splitlines(keepends=True)[0])
    return f"{rows} has changed since training on it began"


@pytest.mark.parametrize("held_out", [True, False])
def test_a_trial_does_not_go_on_with_other_rows(run: Run, make_spec: MakeSpec, rows: Path, held_out: bool) -> None:
    spec = make_spec(train=str(rows), **({} if held_out else {"eval": None}))
    first = run(spec)
    said = append_a_row(rows)
    second = run(spec, until_examples=24, snapshots=(first.snapshot,))
    assert second.outcome is Outcome.DATA_ERROR
    assert said in second.message
    assert "put the old rows back, or begin anew" in second.message


@pytest.mark.parametrize("part", ["train", "eval", "test"])
def test_a_new_trial_does_not_begin_with_rows_that_others_have_not_seen(
    run: Run, make_spec: MakeSpec, rows: Path, part: str
) -> None:
    spec = make_spec(**{part: str(rows)})
    first = run(spec)
    assert first.data_fingerprints is not None
    again = run(make_spec(seed=1, **{part: str(rows)}), data_fingerprints=first.data_fingerprints)
    assert again.outcome is Outcome.DONE
    said = append_a_row(rows)
    other = run(make_spec(seed=2, **{part: str(rows)}), data_fingerprints=first.data_fingerprints)
    assert other.outcome is Outcome.DATA_ERROR
    assert said in other.message
    assert other.data_fingerprints != first.data_fingerprints


def test_rows_that_are_put_back_are_the_old_ones(run: Run, make_spec: MakeSpec, rows: Path) -> None:
    spec, content = make_spec(train=str(rows), lora_dropout=0.1), rows.read_text()
    whole = run(spec, until_examples=74)
    first = run(spec)
    append_a_row(rows)
    rows.write_text(content)
    second = run(spec, until_examples=74, snapshots=(first.snapshot,), data_fingerprints=first.data_fingerprints)
    assert (second.resumed_from_examples, second.eval_loss) == (16, whole.eval_loss)


def test_rows_that_are_left_out_are_told_of_once(run: Run, make_spec: MakeSpec, tmp_path: Path) -> None:
    rows = [{"instruction": "a", "output": "b"}] * 40 + [{"instruction": "tree " * 200, "output": "b"}] * 2
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = make_spec(train=str(path), max_length=64)
    first = run(spec)
    assert [notice.values for notice in first.notices if notice.kind == "rows_left_out"] == [
        {"train_rows": 2.0, "eval_rows": 0.0}
    ]
    assert first.snapshot is not None
    second = run(spec, until_examples=32, snapshots=(first.snapshot,))
    assert (second.resumed_from_examples, second.notices) == (16, ())
