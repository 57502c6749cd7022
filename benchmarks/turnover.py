"""Trials per hour: our service with one warm worker against the article's recipe, one process per trial.

Both train the same 12 configurations on examples/tiny-llama and WordNet instructions: as many optimizer steps as
`--steps` says (one measurement for each number), effective batch 8, at most 128 tokens a row, evaluated in the middle
and at the end on the same 100 rows, nothing pruned, the same number of threads, one trial at a time. Ours writes its
snapshots and its database as always; the recipe saves nothing and keeps its Optuna study in memory.

`python -m benchmarks.turnover [--steps 20,60]` prints one JSON object as its last line. Keys of the first number of
steps are bare, those of the others end in `_STEPS`:

- `trials_per_hour_ours`: from the POST to the completed study, on a service whose worker is ready;
  `..._cold` counts the start of the service and the worker's imports too;
- `trials_per_hour_recipe`: from the first trial's process to the end of the last one;
- `ratio` of these two, `ratio_cold` with the start of the service;
- `overhead_share`: share of the worker's time that is neither training nor evaluation;
- `loss_difference`: mean absolute difference of the final evaluation losses, configuration by configuration, and
  `loss_spread`, the distance of the best from the worst configuration, to compare it with.
"""

import argparse
import json
import os
import sys
import tempfile
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.turnover_ours import Ours, run_ours
from benchmarks.turnover_recipe import Recipe, run_recipe
from benchmarks.turnover_work import EFFECTIVE_BATCH, EVAL_ROWS, Work
from trainer.spec import Parameters

ROOT = Path(__file__).resolve().parents[1]
SOFTWARE = ("torch", "transformers", "peft", "accelerate", "optuna")


def configurations() -> tuple[Parameters, ...]:
    """Twelve points of the article's space; the batch is the same for all, so that 20 steps are 20 steps."""
    rates = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 4e-3)
    ranks = (8, 16, 32, 64)
    warmups = (0.03, 0.1, 0.15)
    return tuple(
        Parameters(
            learning_rate=rates[index % len(rates)],
            lora_r=ranks[index % len(ranks)],
            lora_alpha=2.0 * ranks[index % len(ranks)],
            lora_dropout=0.05,
            warmup_ratio=warmups[index % len(warmups)],
            effective_batch=EFFECTIVE_BATCH,
        )
        for index in range(12)
    )


def write_rows(source: Path, target: Path, rows: int) -> str:
    """The first `rows` rows of `source`."""
    with source.open(encoding="utf-8") as lines:
        taken = list(islice(lines, rows))
    if len(taken) < rows:
        raise SystemExit(f"{source} has {len(taken)} rows, {rows} are needed")
    target.write_text("".join(taken), encoding="utf-8")
    return str(target)


def make_work(folder: Path, steps: int, threads: int) -> Work:
    """One epoch over exactly as many rows as the steps take."""
    data = ROOT / "examples" / "wordnet-instruct"
    return Work(
        model=str(ROOT / "examples" / "tiny-llama"),
        train=write_rows(data / "train.jsonl", folder / f"train-{steps}.jsonl", steps * EFFECTIVE_BATCH),
        eval=write_rows(data / "eval.jsonl", folder / "eval.jsonl", EVAL_ROWS),
        steps=steps,
        threads=threads,
        configurations=configurations(),
    )


def compare(ours: Ours, recipe: Recipe, trials: int) -> dict[str, float]:
    """The numbers of one measurement."""
    differences = [abs(a - b) for a, b in zip(ours.losses, recipe.losses, strict=True)]
    return {
        "trials_per_hour_ours": 3600 * trials / ours.seconds,
        "trials_per_hour_ours_cold": 3600 * trials / ours.cold_seconds,
        "trials_per_hour_recipe": 3600 * trials / recipe.seconds,
        "ratio": recipe.seconds / ours.seconds,
        "ratio_cold": recipe.seconds / ours.cold_seconds,
        "overhead_share": ours.overhead_share,
        "loss_difference": fmean(differences),
        "loss_spread": max(ours.losses) - min(ours.losses),
        "load_average_ours": ours.load_average,
        "load_average_recipe": recipe.load_average,
    }


def measure(work: Work, folder: Path) -> tuple[dict[str, float], str]:
    """Run both, one after the other; the numbers and the worker's device."""
    ours = run_ours(work, folder)
    print(f"{work.steps} steps, ours: {ours}", file=sys.stderr)
    recipe = run_recipe(work)
    print(f"{work.steps} steps, recipe: {recipe}", file=sys.stderr)
    return compare(ours, recipe, len(work.configurations)), ours.device


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", default="20,60", help="optimizer steps of a trial, with commas")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads of worker and recipe")
    options = parser.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="hpo-turnover-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the database may run as another user
        for index, steps in enumerate(int(part) for part in options.steps.split(",")):
            found, device = measure(make_work(folder, steps, options.threads), folder)
            suffix = f"_{steps}" if index else ""
            result |= {f"{key}{suffix}": round(value, 4) for key, value in found.items()} | {"device": device}
    result["software"] = {name: version(name) for name in SOFTWARE}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
