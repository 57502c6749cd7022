"""A file for `axolotl train FILE` (Axolotl 0.19), rows included. Axolotl ignores keys that it does not know."""

from types import MappingProxyType
from typing import Any

from hpo_service.core.export_groups import Group
from hpo_service.exporters.base import Rendered, in_bfloat16, lost
from hpo_service.exporters.header import header
from hpo_service.exporters.target_modules import ALL, alpha, target_modules
from hpo_service.exporters.training_arguments import batches, noise, schedule
from hpo_service.exporters.values import Layout
from hpo_service.exporters.yaml_text import yaml_text
from trainer.spec import TrialFile

_SAID = frozenset(
    {
        "learning_rate",
        "lora_r",
        "lora_dropout",
        "target_modules",
        "use_rslora",
        "use_dora",
        "init_lora_weights",
        "loraplus_lr_ratio",
        "neftune_noise_alpha",
        "optimizer",
        "effective_batch",
        "warmup_ratio",
        "weight_decay",
        "epochs",
        "max_grad_norm",
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "attention",
        "quantization",
        "max_length",
        "packing",
        "seed",
    }
)
_OPTIMIZERS = {"adamw": "adamw_torch", "paged_adamw_8bit": "paged_adamw_8bit"}
_DS_TYPES = {".parquet": "parquet"}
#: how the trainer itself writes rows that are no chats
_PROMPTS: dict[str, Any] = {
    "alpaca": {
        "system_prompt": "",
        "field_instruction": "instruction",
        "field_input": "input",
        "field_output": "output",
        "format": "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
        "no_input_format": "### Instruction:\n{instruction}\n\n### Response:\n",
    },
    "prompt_completion": {
        "system_prompt": "",
        "field_instruction": "prompt",
        "field_output": "completion",
        "format": "{instruction}",
        "no_input_format": "{instruction}",
    },
}
_CHATS: dict[str, Any] = {
    "chat": {"type": "chat_template", "field_messages": "messages"},
    "sharegpt": {
        "type": "chat_template",
        "field_messages": "conversations",
        "message_property_mappings": {"role": "from", "content": "value"},
    },
    "text": {"type": "completion", "field": "text"},
}
LAYOUT = Layout(
    groups=MappingProxyType(
        {
            "base_model": Group.MODEL,
            "load_in_4bit": Group.MODEL,
            "adapter": Group.MODEL,
            "bf16": Group.PRECISION,
            "attn_implementation": Group.PRECISION,
            "gradient_checkpointing": Group.RUN,
            "seed": Group.SEED,
            **dict.fromkeys(
                (
                    "lora_r", "lora_alpha", "lora_dropout", "lora_target_linear", "lora_target_modules",
                    "peft_use_rslora", "peft_use_dora", "peft_init_lora_weights", "loraplus_lr_ratio", "learning_rate",
                    "optimizer", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay", "max_grad_norm",
                    "neftune_noise_alpha", "num_epochs", "warmup_ratio", "lr_scheduler", "lr_scheduler_kwargs",
                ),
                Group.HYPERPARAMETERS,
            ),
            "micro_batch_size": Group.BATCH,
            "gradient_accumulation_steps": Group.BATCH,
            "eval_batch_size": Group.BATCH,
            **dict.fromkeys(
                (
                    "sequence_len", "excess_length_strategy", "sample_packing", "eval_sample_packing",
                    "train_on_inputs", "datasets", "test_datasets", "val_set_size",
                ),
                Group.DATA,
            ),
        }
    ),
    whole=frozenset({"lr_scheduler_kwargs"}),
    rivals=MappingProxyType({"warmup_ratio": ("warmup_steps",), "num_epochs": ("max_steps",)}),
    per_device="micro_batch_size",
    accumulation="gradient_accumulation_steps",
)  # fmt: skip
_USE = "For one process: with N processes divide gradient_accumulation_steps by N; add output_dir"


def render_axolotl(document: TrialFile) -> Rendered:
    """No key: an alpha that is no integer, which rows are held out, chats that are learned as a whole."""
    scheduled, said_schedule = _schedule(document)
    said = _SAID | said_schedule | ({"dtype"} if in_bfloat16(document) is not None else set())
    if document.parameters.lora_alpha.is_integer():
        said |= {"lora_alpha"}
    if document.data.learn == "response" or document.data.format in (*_PROMPTS, "text"):
        said |= {"learn"}
    if document.data.packing:
        said -= {"effective_batch"}
    dropped = (*lost(document, said), *_rows_lost(document))
    body = {**_model(document), **_adapter(document), **_optimizer(document), **scheduled, **_data(document)}
    return Rendered(
        text=header(document, _USE, dropped=dropped) + yaml_text(body),
        media_type="application/yaml",
        file_name="axolotl.yaml",
        dropped=dropped,
        values=LAYOUT.values(body),
        batch=LAYOUT.split(document),
    )


def _model(document: TrialFile) -> dict[str, Any]:
    model = document.model
    return {
        "base_model": model.path,
        "bf16": in_bfloat16(document),
        "load_in_4bit": model.quantization == "nf4",
        "attn_implementation": None if model.attention == "auto" else model.attention,
        "gradient_checkpointing": document.training.activation_checkpointing,
        "seed": document.training.seed,
    }


def _adapter(document: TrialFile) -> dict[str, Any]:
    parameters = document.parameters
    every = parameters.target_modules == ALL
    body = {
        "adapter": "qlora" if document.model.quantization == "nf4" else "lora",
        "lora_r": parameters.lora_r,
        "lora_dropout": parameters.lora_dropout,
        "lora_target_linear": every,
        "lora_target_modules": None if every else target_modules(parameters.target_modules),
        "peft_use_rslora": parameters.use_rslora,
        "peft_use_dora": parameters.use_dora,
        "peft_init_lora_weights": True if parameters.init_lora_weights == "default" else parameters.init_lora_weights,
        "loraplus_lr_ratio": None if parameters.loraplus_lr_ratio == 1 else parameters.loraplus_lr_ratio,
    }
    return body | ({"lora_alpha": alpha(parameters.lora_alpha)} if parameters.lora_alpha.is_integer() else {})


def _optimizer(document: TrialFile) -> dict[str, Any]:
    parameters = document.parameters
    micro_batch, accumulation = batches(document)
    return {
        "learning_rate": parameters.learning_rate,
        "optimizer": _OPTIMIZERS[parameters.optimizer],
        "adam_beta1": parameters.adam_beta1,
        "adam_beta2": parameters.adam_beta2,
        "adam_epsilon": parameters.adam_epsilon,
        "weight_decay": parameters.weight_decay,
        "max_grad_norm": parameters.max_grad_norm,
        "neftune_noise_alpha": noise(document),
        "micro_batch_size": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "eval_batch_size": document.training.eval_batch,
        "num_epochs": parameters.epochs,
        "warmup_ratio": parameters.warmup_ratio,
    }


def _schedule(document: TrialFile) -> tuple[dict[str, Any], frozenset[str]]:
    found = schedule(document)
    if found is None:
        return {}, frozenset()
    return {"lr_scheduler": found[0], "lr_scheduler_kwargs": found[1]}, frozenset({"lr_scheduler", "decay_ratio"})


def _data(document: TrialFile) -> dict[str, Any]:
    data = document.data
    held_out = None if data.eval is None else [_rows(data.eval, data.format)]
    return {
        "sequence_len": data.max_length,
        "excess_length_strategy": "truncate",
        "sample_packing": data.packing,
        "eval_sample_packing": False,
        "train_on_inputs": data.learn == "all",
        "datasets": [_rows(data.train, data.format)],
        "test_datasets": held_out,
        "val_set_size": data.eval_fraction if held_out is None else 0,
    }


def _rows(path: str, format: str) -> dict[str, Any]:
    """One file or folder of rows. Of a format that was not named Axolotl must be told the type."""
    kind = next((known for ending, known in _DS_TYPES.items() if path.endswith(ending)), "json")
    place: dict[str, Any] = {"path": path, "ds_type": kind, "split": "train"}
    if format in _PROMPTS:
        return {**place, "type": _PROMPTS[format]}
    return {**place, **_CHATS.get(format, {})}


def _rows_lost(document: TrialFile) -> tuple[str, ...]:
    split = () if document.data.eval is not None else ("split_seed",)
    return (*split, *(("format",) if document.data.format == "auto" else ()))
