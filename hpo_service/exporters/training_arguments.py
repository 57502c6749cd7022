"""What means the same in transformers' TrainingArguments and in the trainers that are built on them."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from hpo_service.core.export_groups import Group
from trainer.data.rows import total_examples
from trainer.spec import TrialFile

#: names of the document that `training_arguments` says
SAID = frozenset(
    {
        "learning_rate",
        "effective_batch",
        "weight_decay",
        "neftune_noise_alpha",
        "optimizer",
        "epochs",
        "max_grad_norm",
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "seed",
    }
)
#: what the arguments are about
ARGUMENT_GROUPS: Mapping[str, Group] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                "learning_rate", "weight_decay", "num_train_epochs", "max_grad_norm", "optim", "adam_beta1",
                "adam_beta2", "adam_epsilon", "neftune_noise_alpha", "lr_scheduler_type", "lr_scheduler_kwargs",
                "warmup_steps", "warmup_ratio",
            ),
            Group.HYPERPARAMETERS,
        ),
        "per_device_train_batch_size": Group.BATCH,
        "gradient_accumulation_steps": Group.BATCH,
        "per_device_eval_batch_size": Group.BATCH,
        "seed": Group.SEED,
        "bf16": Group.PRECISION,
    }
)  # fmt: skip
#: what overrules them
ARGUMENT_RIVALS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"num_train_epochs": ("max_steps",), "warmup_steps": ("warmup_ratio",), "warmup_ratio": ("warmup_steps",)}
)
_OPTIMIZERS = {"adamw": "adamw_torch", "paged_adamw_8bit": "paged_adamw_8bit"}
_WHOLE_RUN = 0.999999  # `warmup_steps` of 1 would mean one step


def training_arguments(document: TrialFile) -> dict[str, Any]:
    """For one process; the schedule and the warm-up are apart."""
    parameters, training = document.parameters, document.training
    micro_batch, accumulation = batches(document)
    return {
        "learning_rate": parameters.learning_rate,
        "weight_decay": parameters.weight_decay,
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "per_device_eval_batch_size": training.eval_batch,
        "num_train_epochs": parameters.epochs,
        "max_grad_norm": parameters.max_grad_norm,
        "optim": _OPTIMIZERS[parameters.optimizer],
        "adam_beta1": parameters.adam_beta1,
        "adam_beta2": parameters.adam_beta2,
        "adam_epsilon": parameters.adam_epsilon,
        "neftune_noise_alpha": noise(document),
        "seed": training.seed,
    }


def noise(document: TrialFile) -> float | None:
    """The scale of NEFTune's noise; None without."""
    return document.parameters.neftune_noise_alpha or None


def batches(document: TrialFile) -> tuple[int, int]:
    """Examples of a micro-batch of one process, and how many of them are an effective batch, exactly."""
    size = document.parameters.effective_batch
    at_most = min(size, document.training.micro_batch)
    micro_batch = next(candidate for candidate in range(at_most, 0, -1) if size % candidate == 0)
    return micro_batch, size // micro_batch


def warmup_steps(document: TrialFile) -> float:
    """The warm-up as transformers 5 takes it: a number below 1 is a share of all steps."""
    return min(float(document.parameters.warmup_ratio), _WHOLE_RUN)


def schedule(document: TrialFile) -> tuple[str, dict[str, Any] | None] | None:
    """transformers' name of the schedule and its arguments.

    None if it needs a number of steps and the rows are not known, because a guess would mislead.
    """
    parameters = document.parameters
    if parameters.lr_scheduler == "constant":
        return ("constant_with_warmup" if parameters.warmup_ratio > 0 else "constant"), None
    if parameters.lr_scheduler != "wsd":
        return parameters.lr_scheduler, None
    rows = document.provenance.get("train_rows")
    if rows is None:
        return None
    steps = math.ceil(total_examples(int(rows), parameters.epochs) / parameters.effective_batch)
    return "warmup_stable_decay", {"num_decay_steps": math.ceil(parameters.decay_ratio * steps)}


def schedule_arguments(document: TrialFile) -> tuple[dict[str, Any], frozenset[str]]:
    """The schedule as arguments, and the names of the document that they say."""
    found = schedule(document)
    if found is None:
        return {}, frozenset()
    return {"lr_scheduler_type": found[0], "lr_scheduler_kwargs": found[1]}, frozenset({"lr_scheduler", "decay_ratio"})
