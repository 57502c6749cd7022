"""Test rows: looked at once, after a trial's last step, and without any influence on the trial."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trainer.data.token_cache import TokenCache
from trainer.snapshots.snapshot import SnapshotStore
from trainer.snapshots.stores.folder import FolderStore
from trainer.spec import Outcome, Slice, SliceResult, SnapshotRef, TrialSpec
from trainer.worker.resident_trials import Residents
from trainer.worker.slice_run import SliceRun

MakeSpec = Callable[..., TrialSpec]
RunSlice = Callable[..., SliceResult]


@pytest.fixture
def run_slice(tmp_path: Path, token_cache: TokenCache) -> RunSlice:
    """Runs a slice of a trial from its start."""

    def run(spec: TrialSpec, until_examples: int = 1000) -> SliceResult:
        store = SnapshotStore(FolderStore(tmp_path / spec.digest()[:8] / str(until_examples)))
        slice_ = Slice(slice_id=1, attempt=1, trial=spec, until_examples=until_examples, snapshot_dir="1/1/1/1")
        attempt, result = SliceRun(slice_, Residents(torch.device("cpu"), 1, token_cache), store, lambda _: None), None
        while result is None:
            result = attempt.tick()
        return result

    return run


def test_the_test_loss_is_that_of_the_same_rows_as_evaluation_rows(
    make_spec: MakeSpec, row_files: tuple[Path, Path], run_slice: RunSlice
) -> None:
    train, held_out = map(str, row_files)
    tested = run_slice(make_spec(epochs=1.0, eval=None, eval_fraction=0.2, test=held_out, max_eval_examples=3))
    evaluated = run_slice(make_spec(epochs=1.0, eval=None, eval_fraction=0.2))
    assert tested.outcome is Outcome.DONE
    assert tested.test_loss is not None
    assert tested.test_loss != tested.eval_loss
    assert evaluated.test_loss is None
    assert tested.train_loss == evaluated.train_loss
    swapped = run_slice(make_spec(train=train, eval=held_out, test=held_out, epochs=1.0))
    assert swapped.test_loss == swapped.eval_loss


def test_before_the_end_there_is_no_test_loss(
    make_spec: MakeSpec, row_files: tuple[Path, Path], run_slice: RunSlice
) -> None:
    spec = make_spec(test=str(row_files[1]))
    assert run_slice(spec, until_examples=16).test_loss is None
    assert run_slice(spec).test_loss is not None


@pytest.mark.parametrize("until_examples", [40, 1000], ids=["half way", "at its end"])
def test_a_trial_that_stayed_without_test_rows_is_judged_by_them(
    make_spec: MakeSpec, row_files: tuple[Path, Path], token_cache: TokenCache, tmp_path: Path, until_examples: int
) -> None:
    """The search knows no test rows; what is trained or delivered from its trial does, and asks the same worker."""
    searched = make_spec()
    tested = make_spec(test=str(row_files[1]))
    assert searched.digest() == tested.digest()
    residents, store = Residents(torch.device("cpu"), 8, token_cache), SnapshotStore(FolderStore(tmp_path))

    def result_of(number: int, spec: TrialSpec, until: int, *snapshots: SnapshotRef | None) -> SliceResult:
        refs = tuple(ref for ref in snapshots if ref is not None)
        slice_ = Slice(
            slice_id=number, attempt=1, trial=spec, until_examples=until, snapshot_dir=f"{number}", snapshots=refs
        )
        attempt, result = SliceRun(slice_, residents, store, lambda _: None), None
        while result is None:
            result = attempt.tick()
        return result

    rung = result_of(1, searched, until_examples)
    end = result_of(2, tested, 1000, rung.snapshot)
    assert (end.outcome, end.message) == (Outcome.DONE, "")
    assert end.resumed_from_examples == min(until_examples, end.examples_seen)
    assert end.test_loss == end.eval_loss
    again = result_of(3, searched, 1000, end.snapshot)
    assert (again.outcome, again.test_loss, again.eval_loss) == (Outcome.DONE, None, end.eval_loss)


def test_predicted_flops_are_those_of_the_evaluation_rows_alone(
    make_spec: MakeSpec, row_files: tuple[Path, Path], run_slice: RunSlice
) -> None:
    plain, tested = run_slice(make_spec()), run_slice(make_spec(test=str(row_files[0])))
    assert tested.flops_per_example == plain.flops_per_example
    assert tested.usage.flops > plain.usage.flops


def test_test_rows_that_teach_nothing_are_an_error(make_spec: MakeSpec, tmp_path: Path, run_slice: RunSlice) -> None:
    rows = tmp_path / "long.jsonl"
    rows.write_text('{"instruction": "' + "cat " * 300 + '", "output": "dog"}\n')
    result = run_slice(make_spec(test=str(rows)))
    assert result.outcome is Outcome.DATA_ERROR
    assert "long.jsonl: nothing is left to test" in result.message
