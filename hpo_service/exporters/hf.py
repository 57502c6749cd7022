"""Arguments for `transformers.TrainingArguments(**json)`, transformers 5.24 or newer."""

import math
from typing import Any

from hpo_service.exporters.base import Rendered, json_text, names_not_in, settings_not_in
from trainer.rows import total_examples
from trainer.spec import TrialFile

_KNOWN = frozenset(
    {
        "learning_rate",
        "effective_batch",
        "warmup_ratio",
        "weight_decay",
        "lr_scheduler",
        "decay_ratio",
        "neftune_noise_alpha",
        "optimizer",
        "epochs",
        "max_grad_norm",
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
    }
)
_OPTIMIZERS = {"adamw": "adamw_torch", "paged_adamw_8bit": "paged_adamw_8bit"}
_WHOLE_RUN = 0.999999  # `warmup_steps` of 1 would mean one step


def render_hf(document: TrialFile) -> Rendered:
    """The optimizer's half of the trial; the adapter's half is the format `peft`. For one process."""
    parameters, training = document.parameters, document.training
    micro_batch = _largest_divisor(parameters.effective_batch, training.micro_batch)
    arguments: dict[str, Any] = {
        "run_name": _run_name(document),
        "learning_rate": parameters.learning_rate,
        **_scheduler(document),
        "warmup_steps": min(float(parameters.warmup_ratio), _WHOLE_RUN),
        "weight_decay": parameters.weight_decay,
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": parameters.effective_batch // micro_batch,
        "per_device_eval_batch_size": training.eval_batch,
        "num_train_epochs": parameters.epochs,
        "max_grad_norm": parameters.max_grad_norm,
        "optim": _OPTIMIZERS[parameters.optimizer],
        "adam_beta1": parameters.adam_beta1,
        "adam_beta2": parameters.adam_beta2,
        "adam_epsilon": parameters.adam_epsilon,
        "seed": training.seed,
        "bf16": document.model.dtype == "bfloat16",
        "activation_checkpointing": training.activation_checkpointing,
        "logging_nan_inf_filter": False,
    }
    if parameters.neftune_noise_alpha > 0:
        arguments["neftune_noise_alpha"] = parameters.neftune_noise_alpha
    dropped = names_not_in(document, _KNOWN)
    if "lr_scheduler_type" not in arguments:
        dropped = (*dropped, "lr_scheduler", "decay_ratio")
    return Rendered(
        text=json_text(arguments) + "\n",
        media_type="application/json",
        file_name="training_args.json",
        dropped=(*dropped, *settings_not_in(document)),
    )


def _largest_divisor(effective_batch: int, at_most: int) -> int:
    return next(size for size in range(min(effective_batch, at_most), 0, -1) if effective_batch % size == 0)


def _scheduler(document: TrialFile) -> dict[str, Any]:
    """The schedule; nothing if it needs a number of steps and the rows are not known, because a guess would mislead."""
    parameters = document.parameters
    if parameters.lr_scheduler == "constant":
        return {"lr_scheduler_type": "constant_with_warmup" if parameters.warmup_ratio > 0 else "constant"}
    if parameters.lr_scheduler != "wsd":
        return {"lr_scheduler_type": parameters.lr_scheduler}
    rows = document.provenance.get("train_rows")
    if rows is None:
        return {}
    steps = math.ceil(total_examples(int(rows), parameters.epochs) / parameters.effective_batch)
    decay_steps = math.ceil(parameters.decay_ratio * steps)
    return {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": decay_steps}}


def _run_name(document: TrialFile) -> str:
    facts = document.provenance
    return f"{facts['study']}-trial-{facts.get('trial')}" if "study" in facts else "trial"
