"""Our default search, live, against the article's recipe: how long until its best final loss is matched.

Both tune LoRA on examples/tiny-llama with WordNet instructions, the same space, the same rows, one trial at a time, the
same number of threads. The recipe runs its trials to the end: its bill, and the best final loss of its whole trials.
Ours runs through `hpo up` until one of its evaluations is as good, or until it has spent as much time and examples.
Ours takes any evaluation of any trial for a match, and may begin eight times as many trials in the same time.

`python -m benchmarks.search_live [--seeds 3]` prints one JSON object as its last line:

- `speedup_worker_time`: the recipe's whole bill in seconds ÷ ours until its loss is matched, from the POST of the study
  on a service whose worker is ready; geometric mean over the seeds. `..._cold` counts the start of the service too;
- `speedup_examples`: the same in training examples;
- `matched`: in how many seeds the loss was matched; these speed-ups are null unless it was in all;
- `speedup_worker_time_judged`, `speedup_examples_judged`, `matched_judged`: the same with another loss to match, that
  of the recipe's best configuration trained by our trainer as a trial of our study. Two trainers draw data and weights
  differently, which moves the loss of one configuration by more than the best configurations differ;
- `speedup_of_means`: the recipe's mean bill in seconds ÷ the time at which the mean over the seeds of our best loss so
  far is as low as the mean of its best final losses (as `benchmarks.search` counts; ours stops at each seed's match, so
  this is a lower bound); `..._examples` in examples; null if it never is;
- `recipe_reached`: the share of its bill after which the recipe itself first saw that loss, mean over the seeds;
- `sides`: what each side measured, by seed.

Finished sides are kept in `--cells` and not measured again. With 50 trials of 640 rows a seed takes an hour or two on
two cores.
"""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from math import exp, log
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from benchmarks.search_live.judged import best_parameters, retrained
from benchmarks.search_live.ours import Until, run_ours
from benchmarks.search_live.recipe import run_recipe
from benchmarks.search_live.work import EFFECTIVE_BATCH, Cells, LiveWork, Match, Pair, Side
from benchmarks.turnover import write_rows

ROOT = Path(__file__).resolve().parents[2]


def make_work(folder: Path, options: argparse.Namespace) -> LiveWork:
    """The rows that both sides read."""
    if options.rows % (max(EFFECTIVE_BATCH) * options.evaluations):
        raise SystemExit(f"--rows must be a multiple of {max(EFFECTIVE_BATCH)} times --evaluations")
    data = ROOT / "examples" / "wordnet-instruct"
    return LiveWork(
        model=str(ROOT / "examples" / "tiny-llama"),
        train=write_rows(data / "train.jsonl", folder / "train.jsonl", options.rows),
        eval=write_rows(data / "eval.jsonl", folder / "eval.jsonl", options.eval_rows),
        rows=options.rows,
        eval_rows=options.eval_rows,
        evaluations=options.evaluations,
        trials=options.trials,
        threads=options.threads,
    )


def measure(work: LiveWork, seed: int, folder: Path, cells: Cells) -> Pair:
    """The recipe, its best configuration trained by our trainer, then ours until it is as good as both."""
    key = f"recipe {work.digest()} {seed}"
    recipe = cells.find(key)
    if recipe is None:
        recipe = run_recipe(work, seed)
        cells.add(key, recipe)
    _say(seed, "recipe", recipe)
    assert recipe.best_loss is not None
    judged = cells.find_loss(f"judged {work.digest()} {seed} {recipe.best_loss:.6f}")
    if judged is None:
        judged = retrained(work, seed, best_parameters(work, seed, recipe), folder)
        cells.add_loss(f"judged {work.digest()} {seed} {recipe.best_loss:.6f}", judged)
    print(f"seed {seed}: our trainer takes the recipe's best configuration to {judged:.4f}", file=sys.stderr)
    until = Until(loss=min(recipe.best_loss, judged), seconds=recipe.seconds, examples=recipe.examples)
    key = f"ours {work.digest()} {seed} {until.loss:.6f}"
    ours = cells.find(key)
    if ours is None:
        ours = run_ours(work, seed, folder, until)
        cells.add(key, ours)
    _say(seed, "ours", ours)
    return Pair(recipe=recipe, ours=ours, judged=judged)


def summary(pairs: list[Pair]) -> dict[str, Any]:
    """The keys of the last line."""
    shares = [pair.recipe_reached for pair in pairs]
    return {
        **_speedups([pair.matched(pair.recipe_loss) for pair in pairs], ""),
        **_speedups([pair.matched(pair.judged) for pair in pairs], "_judged"),
        "speedup_of_means": _of_means(pairs, "seconds"),
        "speedup_of_means_examples": _of_means(pairs, "examples"),
        "recipe_reached": round(fmean(shares), 3),
    }


def _speedups(matches: list[Match | None], suffix: str) -> dict[str, Any]:
    found = [match for match in matches if match is not None]
    everywhere = len(found) == len(matches)
    means = {
        "speedup_worker_time": [match.worker_time for match in found],
        "speedup_worker_time_cold": [match.worker_time_cold for match in found],
        "speedup_examples": [match.examples for match in found],
    }
    return {
        **{name + suffix: _geometric_mean(ratios) if everywhere else None for name, ratios in means.items()},
        f"speedup_worker_time_by_seed{suffix}": [match and round(match.worker_time, 3) for match in matches],
        f"matched{suffix}": f"{len(found)} of {len(matches)}",
    }


def _of_means(pairs: list[Pair], unit: Literal["seconds", "examples"]) -> float | None:
    """The recipe's mean bill over ours when our mean best loss is its mean best final loss."""
    target = fmean(pair.recipe_loss for pair in pairs)
    bill = fmean(getattr(pair.recipe, unit) for pair in pairs)
    for spent in sorted({getattr(point, unit) for pair in pairs for point in pair.ours.curve}):
        seen = [[point.loss for point in pair.ours.curve if getattr(point, unit) <= spent] for pair in pairs]
        if all(seen) and fmean(map(min, seen)) <= target:
            return round(float(bill / spent), 3)
    return None


def _geometric_mean(ratios: list[float]) -> float:
    return round(exp(fmean(map(log, ratios))), 3)


def _say(seed: int, name: str, side: Side) -> None:
    print(
        f"seed {seed}, {name}: {side.seconds:.0f} s, {side.examples} examples, {side.complete} of {side.trials} trials "
        f"complete, best evaluation {min(point.loss for point in side.curve):.4f}, best final loss {side.best_loss}",
        file=sys.stderr,
    )


def _numbers(side: Side) -> dict[str, Any]:
    return {name: value for name, value in asdict(side).items() if name != "curve"}


def main() -> None:
    """Measure what is missing and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--eval-rows", type=int, default=200)
    parser.add_argument("--evaluations", type=int, default=10, help="how often a trial of the recipe is evaluated")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads of worker and recipe")
    parser.add_argument("--cells", type=Path, default=ROOT / "benchmarks" / "out" / "search_live.jsonl")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hpo-live-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the database may run as another user
        work, cells = make_work(folder, options), Cells(options.cells)
        pairs = [measure(work, seed, folder, cells) for seed in range(options.seeds)]
    sides = [{"recipe": _numbers(pair.recipe), "judged": pair.judged, "ours": _numbers(pair.ours)} for pair in pairs]
    print(json.dumps({**summary(pairs), "sides": sides}))


if __name__ == "__main__":
    main()
