"""One trial of the article's recipe: a process that trains with Hugging Face Trainer and PEFT, then ends.

The recipe's printed mistakes are mended: the searched LoRA parameters are applied, the prompt is not learned, the end
of the text is, the evaluation loss is a mean over tokens. Its template and tokens are the service's own, so both do
the same work. Nothing is saved, which spares the recipe the snapshots that the service writes.

`python -m benchmarks.recipe_trial JSON` prints each evaluation loss when it is there, as `{"loss": ...}`, and at the
end `{"losses": [...], "seconds": {...}}`.
"""

import json
import os
import sys
import tempfile
import time
from typing import Any

from pydantic import BaseModel, ConfigDict

from trainer.common.environment import PROCESS_ENVIRONMENT
from trainer.spec import Parameters

IGNORED = -100
TARGET_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class RecipeTrial(BaseModel):
    """What the process is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    train: str
    eval: str
    max_length: int
    eval_batch: int
    steps: int
    evaluations: int = 2
    seed: int
    threads: int
    parameters: Parameters


def examples(path: str, tokenizer: Any, max_length: int) -> list[dict[str, list[int]]]:  # noqa: ANN401
    """Rows as input ids and labels; prompt tokens are not learned, the end-of-sequence token is."""
    from trainer.data.row_encoding import Encoder, EncoderSettings
    from trainer.data.rows import scan_rows

    encoder = Encoder(tokenizer, EncoderSettings("response", max_length))
    found = []
    for row, spans in encoder.encode(scan_rows(path)):
        if len(spans):
            ids, prompt = row.tolist(), int(spans[0])
            found.append({"input_ids": ids, "labels": [IGNORED] * prompt + ids[prompt:]})
    return found


def lora_model(trial: RecipeTrial) -> Any:  # noqa: ANN401
    """The base in float32 with the searched adapter on it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(trial.seed)
    model = AutoModelForCausalLM.from_pretrained(trial.model, dtype=torch.float32, local_files_only=True)
    model.config.use_cache = False
    config = LoraConfig(
        r=trial.parameters.lora_r,
        lora_alpha=int(trial.parameters.lora_alpha),
        lora_dropout=trial.parameters.lora_dropout,
        target_modules=list(TARGET_MODULES),
        bias="none",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def token_losses(logits: Any, labels: Any) -> Any:  # noqa: ANN401
    """Per row the summed loss and the number of learned tokens, [rows, 2]: small enough to be kept for every row."""
    import torch
    from torch.nn.functional import cross_entropy

    learned = labels[:, 1:] != IGNORED
    nll = torch.zeros(learned.shape, device=logits.device)
    nll[learned] = cross_entropy(logits[:, :-1][learned].float(), labels[:, 1:][learned], reduction="none")
    return torch.stack([nll.sum(1), learned.sum(1)], dim=1)


def token_weighted(prediction: Any) -> dict[str, float]:  # noqa: ANN401
    """The mean loss over all learned tokens, which Trainer's own `eval_loss` is not."""
    loss, tokens = prediction.predictions.astype("float64").sum(axis=0)
    return {"token_loss": float(loss / tokens)}


def trainer_arguments(trial: RecipeTrial) -> Any:  # noqa: ANN401
    """The recipe's arguments as transformers 5 spells them."""
    from transformers import TrainingArguments

    parameters = trial.parameters
    return TrainingArguments(
        output_dir=tempfile.gettempdir(),  # nothing is written there
        max_steps=trial.steps,
        per_device_train_batch_size=parameters.effective_batch,
        per_device_eval_batch_size=trial.eval_batch,
        learning_rate=parameters.learning_rate,
        warmup_steps=parameters.warmup_ratio,  # below 1 it is a share of all steps
        weight_decay=parameters.weight_decay,
        lr_scheduler_type=parameters.lr_scheduler,
        max_grad_norm=parameters.max_grad_norm,
        logging_steps=5,
        logging_nan_inf_filter=False,
        eval_strategy="steps",
        eval_steps=trial.steps // trial.evaluations,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not _accelerated(),
        dataloader_pin_memory=_accelerated(),
        remove_unused_columns=False,
        seed=trial.seed,
    )


def train(trial: RecipeTrial) -> list[float]:
    """The token-weighted evaluation losses, spread evenly, the last one at the end."""
    from transformers import AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainerCallback

    class Telling(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, **known: Any) -> None:  # noqa: ANN401
            print(json.dumps({"loss": known["metrics"]["eval_token_loss"]}), flush=True)

    tokenizer = AutoTokenizer.from_pretrained(trial.model, local_files_only=True)
    evaluation = examples(trial.eval, tokenizer, trial.max_length)
    evaluation.sort(key=lambda row: -len(row["input_ids"]))  # little padding, as in the service
    trainer = Trainer(
        model=lora_model(trial),
        args=trainer_arguments(trial),
        train_dataset=examples(trial.train, tokenizer, trial.max_length),
        eval_dataset=evaluation,
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True, label_pad_token_id=IGNORED),
        compute_metrics=token_weighted,
        preprocess_logits_for_metrics=token_losses,
        callbacks=[Telling()],
    )
    trainer.train()
    return [float(entry["eval_token_loss"]) for entry in trainer.state.log_history if "eval_token_loss" in entry]


def _accelerated() -> bool:
    import torch

    return torch.cuda.is_available()


def main() -> None:
    """Train the configuration of the command line. Libraries are imported under the same environment as a worker's."""
    trial = RecipeTrial.model_validate_json(sys.argv[1])
    os.environ.update(PROCESS_ENVIRONMENT)
    start = time.perf_counter()
    import torch
    import transformers.trainer  # noqa: F401

    torch.set_num_threads(trial.threads)
    imported = time.perf_counter()
    losses = train(trial)
    seconds = {"imports": imported - start, "trial": time.perf_counter() - imported}
    print(json.dumps({"losses": losses, "seconds": seconds}))


if __name__ == "__main__":
    main()
