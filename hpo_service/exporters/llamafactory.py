"""A file for `llamafactory-cli train FILE` (LLaMA-Factory 0.9.5). The data set is named in its own registry."""

from types import MappingProxyType
from typing import Any

from hpo_service.core.export_groups import Group
from hpo_service.exporters.base import Rendered, in_bfloat16, lost
from hpo_service.exporters.header import header
from hpo_service.exporters.target_modules import ALL, alpha, listed
from hpo_service.exporters.training_arguments import (
    ARGUMENT_GROUPS,
    ARGUMENT_RIVALS,
    SAID,
    schedule_arguments,
    training_arguments,
)
from hpo_service.exporters.values import Layout
from hpo_service.exporters.yaml_text import yaml_text
from trainer.spec import TrialFile

_SAID = SAID | {
    "warmup_ratio",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "use_rslora",
    "use_dora",
    "loraplus_lr_ratio",
    "attention",
    "quantization",
    "max_length",
    "packing",
    "learn",
}
LAYOUT = Layout(
    groups=MappingProxyType(
        {
            **ARGUMENT_GROUPS,
            **dict.fromkeys(
                (
                    "lora_rank", "lora_alpha", "lora_dropout", "lora_target", "use_rslora", "use_dora", "pissa_init",
                    "pissa_iter", "loraplus_lr_ratio",
                ),
                Group.HYPERPARAMETERS,
            ),
            **dict.fromkeys(
                (
                    "model_name_or_path", "quantization_bit", "quantization_method", "quantization_type",
                    "double_quantization",
                ),
                Group.MODEL,
            ),
            **dict.fromkeys(("cutoff_len", "packing", "neat_packing", "train_on_prompt"), Group.DATA),
            **dict.fromkeys(("stage", "do_train", "finetuning_type", "disable_gradient_checkpointing"), Group.RUN),
            "flash_attn": Group.PRECISION,
        }
    ),
    whole=frozenset({"lr_scheduler_kwargs"}),
    rivals=ARGUMENT_RIVALS,
    per_device="per_device_train_batch_size",
    accumulation="gradient_accumulation_steps",
)  # fmt: skip
_ATTENTION = {"auto": "auto", "eager": "disabled", "sdpa": "sdpa", "flash_attention_2": "fa2"}
_EXACT = -1  # PiSSA by a whole decomposition, as the trainer does it
_USE = "For one process: with N processes divide gradient_accumulation_steps by N; add dataset and output_dir"


def render_llamafactory(document: TrialFile) -> Rendered:
    """No key: OLoRA, PiSSA on a quantized base, groups of modules, float32 for a checkpoint that is not."""
    schedule, scheduled = schedule_arguments(document)
    adapter, adapted = _adapter(document)
    said = _SAID | scheduled | adapted
    if in_bfloat16(document):
        said |= {"dtype"}
    if document.data.packing:
        said -= {"effective_batch"}
    dropped = lost(document, said)
    body = {
        "stage": "sft",
        "do_train": True,
        **_model(document),
        **adapter,
        **training_arguments(document),
        **schedule,
        "warmup_ratio": document.parameters.warmup_ratio,
        "bf16": in_bfloat16(document),
        **_data(document),
    }
    return Rendered(
        text=header(document, _USE, dropped=dropped) + yaml_text(body),
        media_type="application/yaml",
        file_name="llamafactory-sft.yaml",
        dropped=dropped,
        values=LAYOUT.values(body),
        batch=LAYOUT.split(document),
    )


def _model(document: TrialFile) -> dict[str, Any]:
    quantized = document.model.quantization == "nf4"
    return {
        "model_name_or_path": document.model.path,
        "flash_attn": _ATTENTION[document.model.attention],
        "quantization_bit": 4 if quantized else None,
        "quantization_method": "bnb",
        "quantization_type": "nf4",
        "double_quantization": True,
        "disable_gradient_checkpointing": not document.training.activation_checkpointing,
    }


def _adapter(document: TrialFile) -> tuple[dict[str, Any], frozenset[str]]:
    parameters = document.parameters
    body: dict[str, Any] = {
        "finetuning_type": "lora",
        "lora_rank": parameters.lora_r,
        "lora_alpha": alpha(parameters.lora_alpha),
        "lora_dropout": parameters.lora_dropout,
        "use_rslora": parameters.use_rslora,
        "use_dora": parameters.use_dora,
        "pissa_init": False,
        "loraplus_lr_ratio": None if parameters.loraplus_lr_ratio == 1 else parameters.loraplus_lr_ratio,
    }
    said = frozenset[str]()
    names = listed(parameters.target_modules)
    if names or parameters.target_modules == ALL:
        body["lora_target"] = ",".join(names) if names else "all"
        said |= {"target_modules"}
    if parameters.init_lora_weights == "pissa" and document.model.quantization == "none":
        body |= {"pissa_init": True, "pissa_iter": _EXACT}
        said |= {"init_lora_weights"}
    return body, said


def _data(document: TrialFile) -> dict[str, Any]:
    """`neat_packing` keeps packed examples from seeing each other."""
    return {
        "cutoff_len": document.data.max_length,
        "packing": document.data.packing,
        "neat_packing": document.data.packing,
        "train_on_prompt": document.data.learn == "all",
    }
