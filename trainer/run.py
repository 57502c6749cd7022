"""One configuration from a file to a finished adapter, in this process."""

import argparse
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from trainer.devices import prepare_device
from trainer.errors import TrainerError
from trainer.evaluate import perplexity
from trainer.residents import Residents
from trainer.rows import count_rows, example_counts, total_examples
from trainer.slices import SliceRun
from trainer.snapshot import ADAPTER, ADAPTER_CONFIG, SnapshotStore
from trainer.spec import Outcome, Progress, Slice, SliceResult, SnapshotRef, TrialFile, TrialSpec

_SNAPSHOTS = "snapshots"


class RunError(TrainerError):
    """The run cannot start or did not end well."""


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train `options.file` to its end; the summary that the command prints.

    Raises:
        RunError: with one sentence for the user.
    """
    started = time.monotonic()
    trial = _with_overrides(read_trial_file(options.file), options)
    output: Path = options.output_dir or Path("runs") / options.file.stem
    try:
        output.mkdir(parents=True, exist_ok=True)
        store = SnapshotStore(output)
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
        residents = Residents(prepare_device(options.threads), capacity=1)
        result = _finish(SliceRun(slice_, residents, store, lambda progress: _print_progress(progress, examples)))
        adapter = _copy_adapter(store, result, output / "adapter")
    except TrainerError as error:
        raise RunError(str(error)) from error
    except OSError as error:
        raise RunError(f"{error.filename or output}: {error.strerror or error}") from error
    return {
        "eval_loss": result.eval_loss,
        "perplexity": perplexity(result.eval_loss or 0.0),
        "examples": result.examples_seen,
        "steps": result.usage.steps,
        "seconds": round(time.monotonic() - started, 3),
        "adapter": str(adapter),
    }


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
        raise RunError(f"{path}: {_first_problem(error)}") from error
    data = trial.data.model_copy(
        update={
            "train": _found(trial.data.train, path.parent),
            "eval": trial.data.eval and _found(trial.data.eval, path.parent),
        }
    )
    model = trial.model.model_copy(update={"path": _found(trial.model.path, path.parent)})
    return trial.model_copy(update={"data": data, "model": model})


def _first_problem(error: ValidationError) -> str:
    problems = error.errors()
    where = ".".join(str(part) for part in problems[0]["loc"]) or "the file"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{where}: {problems[0]['msg']}{more}"


def _found(name: str, folder: Path) -> str:
    beside = folder / name
    return str(beside) if not Path(name).exists() and beside.exists() else name


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


def _resumable(store: SnapshotStore, output: Path, trial: TrialSpec, resume: bool) -> tuple[SnapshotRef, ...]:
    if resume:
        return tuple(store.find(_SNAPSHOTS, trial.digest()))
    if any((output / _SNAPSHOTS).glob("*/manifest.json")):
        raise RunError(f"{output} already holds a run: pass --resume auto or another --output-dir")
    return ()


def _total_examples(trial: TrialSpec) -> int:
    held_out = count_rows(trial.data.eval) if trial.data.eval else None
    train_rows, _ = example_counts(trial.data, count_rows(trial.data.train), held_out)
    return total_examples(train_rows, trial.parameters.epochs)


def _finish(run: SliceRun) -> SliceResult:
    result = None
    while result is None:
        result = run.tick()
    if result.outcome is not Outcome.DONE:
        raise RunError(f"{result.outcome.value}: {result.message}")
    for path in result.discarded_snapshots:
        sys.stderr.write(f"snapshot {path} is damaged or of another model and was passed over\n")
    return result


def _copy_adapter(store: SnapshotStore, result: SliceResult, target: Path) -> Path:
    if result.snapshot is None:
        raise RunError("the run left no snapshot")
    target.mkdir(exist_ok=True)
    for name in (ADAPTER, ADAPTER_CONFIG):
        partial = target / f".{name}.partial"
        shutil.copyfile(store.root / result.snapshot.path / name, partial)
        os.replace(partial, target / name)
    return target


def _print_progress(progress: Progress, examples: int) -> None:
    loss = "-" if progress.train_loss is None else f"{progress.train_loss:.4f}"
    sys.stderr.write(
        f"{progress.examples_seen}/{examples} examples, step {progress.step}, loss {loss}, "
        f"{progress.tokens_per_second:.0f} tokens/s\n"
    )
