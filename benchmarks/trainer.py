"""Speed and memory of our engine against Hugging Face Trainer + PEFT and a loop around accelerate, doing the same work.

Each run is a process of its own (benchmarks/trainer_side.py says what is the same); the order of the sides within a
round is drawn at random, ratios are taken within a round, and the median over rounds is printed.

`python -m benchmarks.trainer [--smollm2 FOLDER] [--rounds 5]` prints one JSON object as its last line:

- `ratio_vs_trainer`, `ratio_vs_accelerate`: by model, our tokens per second over theirs (above 1: ours is faster);
- `peak_memory_ratio`: by model, our peak memory over Trainer's (process memory; on CUDA allocated device memory);
- `tokens_per_second`, `final_loss`: by model and side;
- `first_step_ms`: from a slice received by a warm worker to its first step done, `step_ms` the step alone,
  `cold_first_step_ms` the same in a process that starts from nothing; `swap_ms`: admitting and evicting a trial.

SmolLM2 is measured if `--smollm2` names its folder (examples/smollm2/convert.py makes it).
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.trainer_warm import cold_first_step_ms
from benchmarks.trainer_work import Measured, Side, Work

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "examples" / "wordnet-instruct"
SIDES: tuple[Side, ...] = ("ours", "trainer", "accelerate")
SOFTWARE = ("torch", "transformers", "peft", "accelerate")


def works(options: argparse.Namespace) -> dict[str, Work]:
    """What is measured, by model."""
    common = {
        "side": "ours",
        "train": str(DATA / "train.jsonl"),
        "eval": str(DATA / "eval.jsonl"),
        "max_length": 128,
        "batch": 8,
        "threads": options.threads,
    }
    found = {
        "tiny-llama": Work(model=str(ROOT / "examples" / "tiny-llama"), warmup_steps=5, steps=options.steps, **common)
    }
    if options.smollm2:
        found["smollm2"] = Work(model=str(options.smollm2), warmup_steps=1, steps=options.smollm2_steps, **common)
    return found


def run_process(module: str, work: Work, environment: dict[str, str]) -> dict[str, Any]:
    """The last line of a side's process."""
    process = subprocess.run(
        [sys.executable, "-m", module, work.model_dump_json()],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    if process.returncode != 0:
        raise RuntimeError(f"{work.side} failed:\n{process.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return answer


def measure(work: Work, rounds: int, environment: dict[str, str]) -> list[dict[Side, Measured]]:
    """All sides once a round, in random order."""
    order = random.Random(0)
    found = []
    for number in range(rounds):
        results: dict[Side, Measured] = {}
        for side in order.sample(SIDES, len(SIDES)):
            answer = run_process("benchmarks.trainer_side", work.model_copy(update={"side": side}), environment)
            results[side] = Measured.model_validate(answer)
        speeds = {side: round(result.tokens_per_second, 1) for side, result in results.items()}
        print(f"{Path(work.model).name}, round {number + 1}: {speeds} tokens/s", file=sys.stderr)
        found.append(results)
    return found


def summary(rounds: list[dict[Side, Measured]]) -> dict[str, Any]:
    """Medians over the rounds."""

    def ratio(other: Side) -> float:
        return median(found["ours"].tokens_per_second / found[other].tokens_per_second for found in rounds)

    memory = median(found["ours"].peak_memory_bytes / found["trainer"].peak_memory_bytes for found in rounds)
    return {
        "ratio_vs_trainer": round(ratio("trainer"), 3),
        "ratio_vs_accelerate": round(ratio("accelerate"), 3),
        "peak_memory_ratio": round(memory, 3),
        "tokens_per_second": {
            side: round(median(found[side].tokens_per_second for found in rounds), 1) for side in SIDES
        },
        "final_loss": {side: round(median(found[side].final_loss for found in rounds), 4) for side in SIDES},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40, help="timed steps on tiny-llama")
    parser.add_argument("--smollm2", type=Path, help="folder of the converted SmolLM2")
    parser.add_argument("--smollm2-steps", type=int, default=3, help="timed steps on SmolLM2")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads of every side")
    options = parser.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="hpo-trainer-") as tokens:
        environment = {**os.environ, "BENCHMARK_TOKENS": tokens}
        for name, work in works(options).items():
            for key, value in summary(measure(work, options.rounds, environment)).items():
                result.setdefault(key, {})[name] = value
        tiny = works(options)["tiny-llama"]
        result |= {
            key: round(value, 1) for key, value in run_process("benchmarks.trainer_warm", tiny, environment).items()
        }
        result["cold_first_step_ms"] = round(cold_first_step_ms(tiny, environment), 1)
    result["software"] = {name: version(name) for name in SOFTWARE}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
