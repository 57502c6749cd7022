"""Export files, read by their own keys as the documentation of the programs that take them gives these."""

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import yaml
from dotenv import dotenv_values

Read = Callable[[str], dict[str, Any]]

FORMATS = (
    "yaml", "json", "env", "hf", "peft", "trl", "axolotl", "llamafactory", "deepspeed", "helm", "kustomize", "hydra",
)  # fmt: skip
#: key of the file -> our name, where both hold the same value
_TRAINING = {
    "learning_rate": "learning_rate", "weight_decay": "weight_decay", "max_grad_norm": "max_grad_norm",
    "adam_beta1": "adam_beta1", "adam_beta2": "adam_beta2", "adam_epsilon": "adam_epsilon",
}  # fmt: skip
_KEYS: dict[str, dict[str, str]] = {
    "hf": {**_TRAINING, "num_train_epochs": "epochs", "warmup_steps": "warmup_ratio"},
    "trl": {
        **_TRAINING, "num_train_epochs": "epochs", "warmup_steps": "warmup_ratio", "lora_r": "lora_r",
        "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout", "use_rslora": "use_rslora", "use_dora": "use_dora",
    },
    "axolotl": {
        **_TRAINING, "num_epochs": "epochs", "warmup_ratio": "warmup_ratio", "lora_r": "lora_r",
        "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout", "peft_use_rslora": "use_rslora",
        "peft_use_dora": "use_dora", "loraplus_lr_ratio": "loraplus_lr_ratio",
    },
    "llamafactory": {
        **_TRAINING, "num_train_epochs": "epochs", "warmup_ratio": "warmup_ratio", "lora_rank": "lora_r",
        "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout", "use_rslora": "use_rslora", "use_dora": "use_dora",
        "loraplus_lr_ratio": "loraplus_lr_ratio",
    },
    "peft": {
        "r": "lora_r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout", "use_rslora": "use_rslora",
        "use_dora": "use_dora",
    },
    "deepspeed": {},
}  # fmt: skip
_BATCHES = (
    ("per_device_train_batch_size", "gradient_accumulation_steps"),
    ("micro_batch_size", "gradient_accumulation_steps"),
)


def parameters(format: str, text: str) -> dict[str, Any]:
    """The hyperparameters that a file says, by our names; values of `env` are text."""
    if format in ("yaml", "helm", "hydra"):
        return dict(yaml.safe_load(text)["parameters"])
    if format == "json":
        return dict(json.loads(text)["parameters"])
    if format == "env":
        return {name.lower(): value for name, value in dotenv_values(stream=io.StringIO(text)).items()}
    if format == "kustomize":
        (made,) = yaml.safe_load(text)["configMapGenerator"]
        return {name.lower(): value for name, value in (one.split("=", 1) for one in made["literals"])}
    written = json.loads(text) if format in ("hf", "peft", "deepspeed") else yaml.safe_load(text)
    return _translated(format, written)


def _translated(format: str, written: Mapping[str, Any]) -> dict[str, Any]:
    found = {ours: written[key] for key, ours in _KEYS[format].items() if written.get(key) is not None}
    for one, many in _BATCHES:
        if one in written and many in written:
            found["effective_batch"] = written[one] * written[many]
    return found
