"""One side of the evaluation benchmark in a process of its own: `python -m benchmarks.eval_bias_side JSON`.

Evaluates the same adapter on the same rows in each batch size and writes the losses to a file, since libraries print
as well. With RANK and its like in the environment the process is one rank of a group, and rank 0 writes.
"""

import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from trainer.common.environment import PROCESS_ENVIRONMENT
from trainer.spec import SnapshotRef, TrialSpec

GROUP_SECONDS = 300.0


class Side(BaseModel):
    """What the process is told. `spec` is what the adapter below `folder` was trained by, on one rank."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    side: Literal["ours", "hf"]
    spec: TrialSpec
    folder: Path
    snapshot: SnapshotRef
    ranks: int
    batches: tuple[int, ...]
    threads: int


class Losses(BaseModel):
    """By evaluation batch."""

    losses: dict[int, float]


def losses_path(told: Side) -> Path:
    """Where the losses are written."""
    return told.folder / f"{told.side}-{told.ranks}.json"


def ours(told: Side) -> dict[int, float]:
    """Our engine's evaluation: resident on one rank, ZeRO-3 on several."""
    from trainer.accounting.devices import prepare_device
    from trainer.data.token_cache import TokenCache
    from trainer.distributed.ranks import Ranks, start_ranks
    from trainer.snapshots.snapshot import SnapshotStore
    from trainer.snapshots.stores.folder import FolderStore
    from trainer.worker.resident_trials import Residents

    device = prepare_device(told.threads)
    ranks = start_ranks(GROUP_SECONDS) if told.ranks > 1 else Ranks()
    residents = Residents(device, 1, TokenCache(told.folder / "tokens", 1), ranks=ranks)
    training = told.spec.training.model_copy(update={"ranks": told.ranks})
    spec = told.spec.model_copy(update={"training": training})
    engine = residents.engine(spec)
    snapshot = SnapshotStore(FolderStore(told.folder)).read(told.snapshot)
    # The number of ranks is part of a trial's identity; the weights are the same.
    trial = engine.admit(spec, replace(snapshot, state=replace(snapshot.state, trial_digest=spec.digest())))
    losses = {}
    for batch in told.batches:
        trial.plan = replace(trial.plan, eval_batch=batch)
        evaluation = engine.evaluate(trial)
        try:
            while True:
                next(evaluation)
        except StopIteration as end:
            losses[batch] = float(end.value.loss)
    return losses


def hf(told: Side) -> dict[int, float]:
    """Hugging Face's `Trainer.evaluate`: `eval_loss` as it reports it."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

    from benchmarks.recipe_trial import IGNORED, examples

    torch.set_num_threads(told.threads)
    data, path = told.spec.data, told.spec.model.path
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    rows = examples(str(data.eval), tokenizer, data.max_length)
    losses = {}
    for batch in told.batches:
        arguments = TrainingArguments(
            output_dir=tempfile.gettempdir(),  # nothing is written there
            per_device_eval_batch_size=batch,
            logging_nan_inf_filter=False,
            report_to="none",
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            dataloader_pin_memory=torch.cuda.is_available(),
            remove_unused_columns=False,
        )
        base = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, local_files_only=True)
        runner = Trainer(
            model=PeftModel.from_pretrained(base, told.folder / told.snapshot.path),
            args=arguments,
            eval_dataset=rows,
            data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True, label_pad_token_id=IGNORED),
        )
        losses[batch] = float(runner.evaluate()["eval_loss"])
    return losses


def main() -> None:
    """Evaluate and write."""
    told = Side.model_validate_json(sys.argv[1])
    os.environ.update(PROCESS_ENVIRONMENT)
    sides: dict[str, Any] = {"ours": ours, "hf": hf}
    losses = sides[told.side](told)
    if os.environ.get("RANK", "0") == "0":
        losses_path(told).write_text(Losses(losses=losses).model_dump_json())
    sys.stdout.flush()
    # DeepSpeed's exit handlers wait for each other; nothing of this process is needed any more.
    os._exit(0)


if __name__ == "__main__":
    main()
