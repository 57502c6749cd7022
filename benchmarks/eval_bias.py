"""Does the evaluation loss depend on how it is computed? The same adapter, the same rows, other batches and ranks.

`python -m benchmarks.eval_bias [--rows 400] [--batches 1,2,8,64] [--ranks 1,2]` trains a small adapter on tiny-llama
with our engine, then evaluates it with ours (resident on one rank, ZeRO-3 on more) and with Hugging Face's
`Trainer.evaluate` (DDP on more) in processes of their own, and prints one JSON object as its last line:

- `spread_ours`, `spread_hf`: largest minus smallest of all losses of the side; ours should be rounding (1e-6 or less);
- `losses_ours`, `losses_hf`: by ranks, then by evaluation batch;
- `largest_error_hf`: farthest that Hugging Face's loss is from ours, which is the mean over response tokens;
- `spread_hf_share`: `spread_hf` over the loss.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.eval_bias_side import Losses, Side, losses_path
from benchmarks.turnover import write_rows
from trainer.distributed.worker_group import rank_environment
from trainer.spec import DataSpec, ModelSpec, Parameters, SnapshotRef, TrainingSettings, TrialSpec, Usage

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "examples" / "wordnet-instruct"
SOFTWARE = ("torch", "transformers", "peft", "accelerate", "deepspeed")
MAX_LENGTH = 128
TRAINED_EXAMPLES = 160
SIDE_SECONDS = 1800.0


def make_spec(folder: Path, rows: int) -> TrialSpec:
    """A short trial, evaluated on `rows` rows."""
    return TrialSpec(
        model=ModelSpec(path=str(ROOT / "examples" / "tiny-llama"), dtype="float32"),
        data=DataSpec(
            train=write_rows(DATA / "train.jsonl", folder / "train.jsonl", TRAINED_EXAMPLES),
            eval=write_rows(DATA / "eval.jsonl", folder / "eval.jsonl", rows),
            max_length=MAX_LENGTH,
        ),
        parameters=Parameters(learning_rate=2e-3, lora_r=8, effective_batch=8),
        training=TrainingSettings(micro_batch=8),
    )


def train_adapter(spec: TrialSpec, folder: Path, threads: int) -> SnapshotRef:
    """Train the trial to its end on the resident engine; its snapshot, whose adapter PEFT reads as well."""
    from trainer.accounting.devices import prepare_device
    from trainer.data.token_cache import TokenCache
    from trainer.snapshots.snapshot import SnapshotStore
    from trainer.snapshots.stores.folder import FolderStore
    from trainer.worker.resident_trials import Residents

    residents = Residents(prepare_device(threads), 1, TokenCache(folder / "tokens", 1))
    engine = residents.engine(spec)
    trial = engine.admit(spec, None)
    for _ in engine.advance(trial, trial.total_examples):
        pass
    return SnapshotStore(FolderStore(folder)).write("adapter", engine.snapshot(trial, None), Usage())


def evaluate(told: Side) -> dict[int, float]:
    """Run a side as one process a rank; its losses by evaluation batch."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": str(told.threads)}
    command = [sys.executable, "-m", "benchmarks.eval_bias_side", told.model_dump_json()]
    logs = [told.folder / f"{told.side}-{told.ranks}-{rank}.log" for rank in range(told.ranks)]
    processes = []
    for rank, log in enumerate(logs):
        own = rank_environment(rank, told.ranks, port) if told.ranks > 1 else {}
        with log.open("wb") as output:
            processes.append(
                subprocess.Popen(command, cwd=ROOT, env={**environment, **own}, stdout=output, stderr=output)
            )
    try:
        statuses = [process.wait(timeout=SIDE_SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for status, log in zip(statuses, logs, strict=True):
        if status != 0:
            raise RuntimeError(f"{told.side} on {told.ranks} ranks failed:\n{log.read_text(errors='replace')[-3000:]}")
    return Losses.model_validate_json(losses_path(told).read_text()).losses


def compare(losses: dict[str, dict[int, dict[int, float]]]) -> dict[str, Any]:
    """The numbers of all sides: `losses` by side, ranks and batch."""
    flat = {side: [loss for by_batch in found.values() for loss in by_batch.values()] for side, found in losses.items()}
    spread = {side: max(values) - min(values) for side, values in flat.items()}
    reference = flat["ours"][0]
    return {
        "spread_ours": spread["ours"],
        "spread_hf": spread["hf"],
        "largest_error_hf": max(abs(loss - reference) for loss in flat["hf"]),
        "spread_hf_share": spread["hf"] / reference,
        "losses_ours": losses["ours"],
        "losses_hf": losses["hf"],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400, help="evaluation rows")
    parser.add_argument("--batches", default="1,2,8,64", help="evaluation batches, with commas")
    parser.add_argument("--ranks", default="1,2", help="numbers of ranks, with commas")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a rank")
    options = parser.parse_args()
    batches, ranks = (tuple(int(part) for part in text.split(",")) for text in (options.batches, options.ranks))
    losses: dict[str, dict[int, dict[int, float]]] = {"ours": {}, "hf": {}}
    with tempfile.TemporaryDirectory(prefix="hpo-eval-bias-") as name:
        folder = Path(name)
        spec = make_spec(folder, options.rows)
        snapshot = train_adapter(spec, folder, options.threads)
        for size in ranks:
            for side in ("ours", "hf"):
                told = Side(
                    side=side,
                    spec=spec,
                    folder=folder,
                    snapshot=snapshot,
                    ranks=size,
                    batches=batches,
                    threads=options.threads,
                )
                losses[side][size] = evaluate(told)
                print(f"{side} on {size} ranks: {losses[side][size]}", file=sys.stderr)
    result = compare(losses)
    result["software"] = {name: version(name) for name in SOFTWARE}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
