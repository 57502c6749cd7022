"""A file for `trl sft --config FILE` (TRL 1.16): model and training arguments. The data set is the caller's."""

from types import MappingProxyType
from typing import Any

from hpo_service.core.export_groups import Group
from hpo_service.exporters.base import Rendered, in_bfloat16, lost
from hpo_service.exporters.header import header
from hpo_service.exporters.target_modules import alpha, expression
from hpo_service.exporters.training_arguments import (
    ARGUMENT_GROUPS,
    ARGUMENT_RIVALS,
    SAID,
    schedule_arguments,
    training_arguments,
    warmup_steps,
)
from hpo_service.exporters.values import Layout
from hpo_service.exporters.yaml_text import yaml_text
from trainer.spec import AUTO, TrialFile

_SAID = SAID | {
    "warmup_ratio",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "use_rslora",
    "use_dora",
    "attention",
    "quantization",
    "max_length",
    "packing",
}
LAYOUT = Layout(
    groups=MappingProxyType(
        {
            **ARGUMENT_GROUPS,
            **dict.fromkeys(
                ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "use_rslora", "use_dora"),
                Group.HYPERPARAMETERS,
            ),
            **dict.fromkeys(
                ("model_name_or_path", "load_in_4bit", "bnb_4bit_quant_type", "use_bnb_nested_quant"), Group.MODEL
            ),
            **dict.fromkeys(("dtype", "attn_implementation"), Group.PRECISION),
            **dict.fromkeys(("use_peft", "gradient_checkpointing"), Group.RUN),
            **dict.fromkeys(
                ("max_length", "packing", "packing_strategy", "completion_only_loss", "assistant_only_loss"),
                Group.DATA,
            ),
        }
    ),
    whole=frozenset({"lr_scheduler_kwargs"}),
    rivals=ARGUMENT_RIVALS,
    per_device="per_device_train_batch_size",
    accumulation="gradient_accumulation_steps",
)
_USE = "For one process: with N processes divide gradient_accumulation_steps by N; add your data set"


def render_trl(document: TrialFile) -> Rendered:
    """TRL has no key for LoRA+ and for how an adapter begins. Packing counts rows in a batch, not examples."""
    schedule, scheduled = schedule_arguments(document)
    learned, said_learn = _learned(document)
    said = _SAID | scheduled | said_learn | ({"dtype"} if in_bfloat16(document) is not None else set())
    if document.data.packing:
        said -= {"effective_batch"}
    dropped = lost(document, said)
    body = {**_model(document), **training_arguments(document), **schedule, **_run(document), **learned}
    return Rendered(
        text=header(document, _USE, dropped=dropped) + yaml_text(body),
        media_type="application/yaml",
        file_name="trl-sft.yaml",
        dropped=dropped,
        values=LAYOUT.values(body),
        batch=LAYOUT.split(document),
    )


def _model(document: TrialFile) -> dict[str, Any]:
    model, parameters = document.model, document.parameters
    quantized = model.quantization == "nf4"
    return {
        "model_name_or_path": model.path,
        "dtype": None if model.dtype == AUTO else model.dtype,
        "attn_implementation": None if model.attention == AUTO else model.attention,
        "load_in_4bit": quantized,
        "bnb_4bit_quant_type": "nf4",
        "use_bnb_nested_quant": quantized,
        "use_peft": True,
        "lora_r": parameters.lora_r,
        "lora_alpha": alpha(parameters.lora_alpha),
        "lora_dropout": parameters.lora_dropout,
        # TRL makes a list of one a text, and PEFT reads a text as a regular expression.
        "lora_target_modules": [expression(parameters.target_modules)],
        "use_rslora": parameters.use_rslora,
        "use_dora": parameters.use_dora,
    }


def _run(document: TrialFile) -> dict[str, Any]:
    return {
        "warmup_steps": warmup_steps(document),
        "bf16": in_bfloat16(document),
        "gradient_checkpointing": document.training.activation_checkpointing,
        "max_length": document.data.max_length,
        "packing": document.data.packing,
        "packing_strategy": "bfd",
    }


def _learned(document: TrialFile) -> tuple[dict[str, Any], frozenset[str]]:
    """Which tokens count depends on the columns of the data set, so it is said where they are known."""
    if document.data.learn == "all":
        return {"completion_only_loss": False, "assistant_only_loss": False}, frozenset({"learn"})
    match document.data.format:
        case "prompt_completion":
            return {"completion_only_loss": True, "assistant_only_loss": False}, frozenset({"learn"})
        case "chat":
            return {"completion_only_loss": None, "assistant_only_loss": True}, frozenset({"learn"})
        case _:
            return {}, frozenset()
