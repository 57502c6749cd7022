"""One configuration from a file to a finished adapter, in this process or on a worker group that it starts."""

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from trainer.accounting.devices import auto_dtype, prepare_device
from trainer.accounting.prices import read_prices
from trainer.commands.summary import summarize
from trainer.common.errors import TrainerError
from trainer.common.written_files import first_problem, found_path
from trainer.data.rows import count_rows_quickly, example_counts, total_examples
from trainer.data.token_cache import TokenCache
from trainer.distributed.group_run import run_in_group
from trainer.snapshots.snapshot import SnapshotStore
from trainer.snapshots.stores.base import ADAPTER, ADAPTER_CONFIG, Store
from trainer.snapshots.stores.folder import FolderStore
from trainer.snapshots.stores.verify import open_files
from trainer.spec import AUTO, Outcome, Progress, Slice, SliceResult, SnapshotRef, TrialFile, TrialSpec
from trainer.worker.resident_trials import Residents
from trainer.worker.slice_run import SliceRun

_SNAPSHOTS = "snapshots"


class RunError(TrainerError):
    """The run cannot start or did not end well."""


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train `options.file` to its end; the summary that the command prints.

    Raises:
        RunError: with one sentence for the user.
    """
    started = time.monotonic()
    written = _with_overrides(read_trial_file(options.file), options)
    trial = _in_dtype(written)
    output: Path = options.output_dir or Path("runs") / options.file.stem
    try:
        prices = read_prices(options.prices) if options.prices else None
        output.mkdir(parents=True, exist_ok=True)
        store = FolderStore(output)
        snapshots = _resumable(store, output, trial, options.resume == "auto")
        examples = _total_examples(trial)
        slice_ = Slice(
            slice_id=0,
            attempt=1,
            trial=trial,
            until_examples=examples,
            snapshot_dir=_SNAPSHOTS,
            snapshots=snapshots,
        )
        result = _finished(slice_, store, options, lambda progress: _print_progress(progress, examples))
        adapter = _copy_adapter(store, result, output / "adapter")
    except TrainerError as error:
        raise RunError(str(error)) from error
    except OSError as error:
        raise RunError(f"{error.filename or output}: {error.strerror or error}") from error
    summary, said = summarize(result, prices, datetime.now(UTC))
    for sentence in (*_said_of_dtype(written, result), *said):
        sys.stderr.write(f"{sentence}\n")
    return {**summary, "seconds": round(time.monotonic() - started, 3), "adapter": str(adapter)}


def read_trial_file(path: Path) -> TrialSpec:
    """The trial in a YAML or JSON file, its paths looked up from the current folder, then from the file's.

    Raises:
        RunError: the file is missing or does not describe a trial.
    """
    try:
        # Pure Python reads YAML 1.2, in which 1e-4 is a number.
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        trial = TrialFile.model_validate(content).trial()
    except OSError as error:
        raise RunError(f"{path}: {error.strerror or error}") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise RunError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise RunError(f"{path}: {first_problem(error)}") from error
    data = trial.data.model_copy(
        update={
            "train": found_path(trial.data.train, path.parent),
            "eval": trial.data.eval and found_path(trial.data.eval, path.parent),
            "test": trial.data.test and found_path(trial.data.test, path.parent),
        }
    )
    model = trial.model.model_copy(update={"path": found_path(trial.model.path, path.parent)})
    return trial.model_copy(update={"data": data, "model": model})


def _with_overrides(trial: TrialSpec, options: argparse.Namespace) -> TrialSpec:
    data: dict[str, str] = {}
    if options.data:
        data["train"] = options.data
    if options.eval_data:
        data["eval"] = options.eval_data
    model = {"path": options.model} if options.model else {}
    return trial.model_copy(
        update={"data": trial.data.model_copy(update=data), "model": trial.model.model_copy(update=model)}
    )


def _in_dtype(trial: TrialSpec) -> TrialSpec:
    """The trial with `model.dtype: auto` resolved for this machine's device."""
    if trial.model.dtype != AUTO:
        return trial
    return trial.in_dtype(auto_dtype(torch.device("cuda" if torch.cuda.is_available() else "cpu")))


def _said_of_dtype(written: TrialSpec, result: SliceResult) -> tuple[str, ...]:
    if written.model.dtype != AUTO:
        return ()
    return (f"model.dtype auto is {result.dtype} on {result.device}; name it in the file to have it everywhere",)


def _resumable(store: Store, output: Path, trial: TrialSpec, resume: bool) -> tuple[SnapshotRef, ...]:
    if resume:
        return tuple(SnapshotStore(store).find(_SNAPSHOTS, trial.digest()))
    if store.snapshots_in(_SNAPSHOTS):
        raise RunError(f"{output} already holds a run: pass --resume auto or another --output-dir")
    return ()


def _total_examples(trial: TrialSpec) -> int:
    data = trial.data
    held_out = count_rows_quickly(data.eval, data.format) if data.eval else None
    train_rows, _ = example_counts(data, count_rows_quickly(data.train, data.format), held_out)
    return total_examples(train_rows, trial.parameters.epochs)


def _finished(slice_: Slice, store: Store, options: argparse.Namespace, say: Callable[[Progress], None]) -> SliceResult:
    """Run the slice in this process, or on a worker group if the trial is for several ranks."""
    if slice_.trial.training.ranks > 1:
        result = run_in_group(slice_, store.location, options, say)
        if result.outcome is Outcome.OOM and result.micro_batch is not None and result.micro_batch > 1:
            again = _with_half(slice_, store, result.micro_batch // 2)
            sys.stderr.write(f"{result.message}; goes on with {again.micro_batch} at the same effective batch\n")
            result = run_in_group(again, store.location, options, say)
    else:
        cache = TokenCache(options.token_cache, options.tokenize_processes)
        residents = Residents(prepare_device(options.threads), 1, cache)
        result = _in_this_process(SliceRun(slice_, residents, SnapshotStore(store), say))
    if result.outcome is not Outcome.DONE:
        remedy = "; go on with --resume auto" if result.outcome is Outcome.INFRA_ERROR else ""
        raise RunError(f"{result.outcome.value}: {result.message}{remedy}")
    for path in result.discarded_snapshots:
        sys.stderr.write(f"snapshot {path} is damaged or of another model and was passed over\n")
    return result


def _with_half(slice_: Slice, store: Store, micro_batch: int) -> Slice:
    """The slice from its newest checkpoint, after memory ran out on a rank."""
    snapshots = tuple(SnapshotStore(store).find(slice_.snapshot_dir, slice_.trial.digest()))
    return slice_.model_copy(update={"attempt": slice_.attempt + 1, "micro_batch": micro_batch, "snapshots": snapshots})


def _in_this_process(run: SliceRun) -> SliceResult:
    while (result := run.tick()) is None:
        pass
    return result


def _copy_adapter(store: Store, result: SliceResult, target: Path) -> Path:
    if result.snapshot is None:
        raise RunError("the run left no snapshot")
    target.mkdir(exist_ok=True)
    for name, _, file in open_files(store, result.snapshot, (ADAPTER, ADAPTER_CONFIG)):
        partial = target / f".{name}.partial"
        with file, partial.open("wb") as copy:
            shutil.copyfileobj(file, copy)
        partial.replace(target / name)
    return target


def _print_progress(progress: Progress, examples: int) -> None:
    if progress.phase == "starting" and not progress.step:
        return
    loss = "-" if progress.train_loss is None else f"{progress.train_loss:.4f}"
    sys.stderr.write(
        f"{progress.examples_seen}/{examples} examples, step {progress.step}, loss {loss}, "
        f"{progress.tokens_per_second:.0f} tokens/s\n"
    )
