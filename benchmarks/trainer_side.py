"""One side of the trainer benchmark, in a process of its own: `python -m benchmarks.trainer_side JSON`.

All sides see the same examples in the same order in the same batches, padded to the longest row of a batch; the same
LoRA without dropout, float32, AdamW, a constant rate after the same warm-up, clipping at 1. Ours also watches every
step for divergence and counts tokens and FLOPs; Trainer logs every tenth step; accelerate's loop reads every loss.
"""

import math
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.trainer_work import SEED, Measured, Work
from trainer.common.environment import PROCESS_ENVIRONMENT

IGNORED = -100


def ours(work: Work) -> Measured:
    """Our resident engine."""
    import torch

    from trainer.model.base_model import BaseModel
    from trainer.training.engines.resident import ResidentEngine

    spec = work.trial()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    engine = ResidentEngine(BaseModel(spec.model, device), _token_cache())
    trial = engine.admit(spec, None)
    steps = engine.advance(trial, trial.total_examples)
    warm = [next(steps) for _ in range(work.warmup_steps)]
    _wait_for_device()
    start = time.perf_counter()
    timed = list(steps)
    _wait_for_device()
    seconds = time.perf_counter() - start
    losses = [step.loss for step in (*warm, *timed)]
    return _measured(sum(step.tokens for step in timed), seconds, losses)


def trainer(work: Work) -> Measured:
    """Hugging Face Trainer with PEFT."""
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainerCallback

    tokenizer, rows = _rows(work)
    ended: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:  # noqa: ANN401
            if len(ended) in (work.warmup_steps - 1, work.warmup_steps + work.steps - 1):
                _wait_for_device()
            ended.append(time.perf_counter())

    runner = Trainer(
        model=_lora_model(work),
        args=_arguments(work),
        train_dataset=rows,
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True, label_pad_token_id=IGNORED),
        callbacks=[Clock()],
    )
    runner.train()
    losses = [float(entry["loss"]) for entry in runner.state.log_history if "loss" in entry]
    return _measured(_timed_tokens(work, rows), ended[-1] - ended[work.warmup_steps - 1], losses[-1:])


def accelerate(work: Work) -> Measured:
    """A plain loop around `accelerate`, as its documentation shows it."""
    import torch
    from accelerate import Accelerator
    from transformers import DataCollatorForSeq2Seq, get_scheduler

    tokenizer, rows = _rows(work)
    parameters = work.trial().parameters
    steps = work.warmup_steps + work.steps
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    model = _lora_model(work)
    optimizer = torch.optim.AdamW(
        [weight for weight in model.parameters() if weight.requires_grad], lr=parameters.learning_rate, weight_decay=0.0
    )
    collate = DataCollatorForSeq2Seq(tokenizer, padding=True, label_pad_token_id=IGNORED)
    loader: Any = torch.utils.data.DataLoader(rows, batch_size=work.batch, collate_fn=collate)  # type: ignore[arg-type]
    schedule = get_scheduler("constant_with_warmup", optimizer, math.ceil(parameters.warmup_ratio * steps), steps)
    model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)
    model.train()
    losses, start = [], 0.0
    for index, batch in enumerate(loader):
        if index == work.warmup_steps:
            _wait_for_device()
            start = time.perf_counter()
        loss = model(**batch).loss
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), parameters.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    _wait_for_device()
    return _measured(_timed_tokens(work, rows), time.perf_counter() - start, losses)


def _rows(work: Work) -> tuple[Any, list[dict[str, list[int]]]]:
    """The tokenizer, and our examples in our order, as input ids and labels."""
    import torch
    from transformers import AutoTokenizer

    from trainer.data.dataset import DataCache, DataOrder

    tokenizer = AutoTokenizer.from_pretrained(work.model, local_files_only=True)
    spec = work.trial()
    data = DataCache(tokenizer, _token_cache()).load(spec.data, work.max_length)
    rows = []
    for index in DataOrder(SEED, len(data.train)).indices(0, (work.warmup_steps + work.steps) * work.batch):
        batch = data.train.batch([index], torch.device("cpu"))
        labels = torch.full_like(batch.input_ids[0], IGNORED)
        labels[batch.positions + 1] = batch.targets
        rows.append({"input_ids": batch.input_ids[0].tolist(), "labels": labels.tolist()})
    return tokenizer, rows


def _lora_model(work: Work) -> Any:  # noqa: ANN401
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from trainer.common.target_modules import target_modules

    torch.manual_seed(SEED)
    parameters = work.trial().parameters
    model = AutoModelForCausalLM.from_pretrained(work.model, dtype=torch.float32, local_files_only=True)
    model.config.use_cache = False
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    linear = [name for name, part in model.named_modules() if isinstance(part, torch.nn.Linear) and part is not head]
    config = LoraConfig(
        r=parameters.lora_r,
        lora_alpha=int(parameters.lora_alpha),
        target_modules=target_modules(linear, parameters.target_modules),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def _arguments(work: Work) -> Any:  # noqa: ANN401
    import torch
    from transformers import TrainingArguments

    parameters, accelerated = work.trial().parameters, torch.cuda.is_available()
    return TrainingArguments(
        output_dir=tempfile.gettempdir(),  # nothing is written there
        max_steps=work.warmup_steps + work.steps,
        per_device_train_batch_size=work.batch,
        train_sampling_strategy="sequential",
        learning_rate=parameters.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=parameters.warmup_ratio,  # below 1 it is a share of all steps
        weight_decay=0.0,
        max_grad_norm=parameters.max_grad_norm,
        logging_steps=min(10, work.warmup_steps + work.steps),
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not accelerated,
        dataloader_pin_memory=accelerated,
        remove_unused_columns=False,
        seed=SEED,
    )


def _token_cache() -> Any:  # noqa: ANN401
    from trainer.data.token_cache import TokenCache

    return TokenCache(Path(os.environ["BENCHMARK_TOKENS"]), 1)


def _timed_tokens(work: Work, rows: list[dict[str, list[int]]]) -> int:
    return sum(len(row["input_ids"]) for row in rows[work.warmup_steps * work.batch :])


def _measured(tokens: int, seconds: float, losses: list[float]) -> Measured:
    import torch

    from trainer.accounting.peak_memory import peak_memory_of

    peak = peak_memory_of(torch.device("cuda" if torch.cuda.is_available() else "cpu")).read_bytes()
    return Measured(tokens=tokens, seconds=seconds, final_loss=fmean(losses[-5:]), peak_memory_bytes=peak)


def _wait_for_device() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    """Do the work of the command line. Libraries are imported under the same environment as a worker's."""
    work = Work.model_validate_json(sys.argv[1])
    os.environ.update(PROCESS_ENVIRONMENT)
    import torch

    torch.set_num_threads(work.threads)
    sides = {"ours": ours, "trainer": trainer, "accelerate": accelerate}
    print(sides[work.side](work).model_dump_json())


if __name__ == "__main__":
    main()
