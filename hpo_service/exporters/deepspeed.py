"""A DeepSpeed configuration for `transformers.TrainingArguments(deepspeed=FILE)`, beside the format `hf`.

What both would say is `auto`: transformers fills it in from its arguments, so that the two cannot disagree. There is no
scheduler in it, because DeepSpeed's differ from transformers' of the same names.
"""

from types import MappingProxyType
from typing import Any

from hpo_service.core.export_groups import Group
from hpo_service.exporters.base import Rendered, json_text, lost
from hpo_service.exporters.values import Layout
from trainer.spec import TrialFile

_SAID = frozenset(
    {
        "learning_rate",
        "weight_decay",
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "effective_batch",
        "max_grad_norm",
        "optimizer",
        "dtype",
    }
)
LAYOUT = Layout(
    groups=MappingProxyType(
        {
            **dict.fromkeys(
                (
                    "optimizer",
                    "zero_allow_untested_optimizer",
                    "zero_force_ds_cpu_optimizer",
                    "gradient_clipping",
                ),
                Group.HYPERPARAMETERS,
            ),
            **dict.fromkeys(
                ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"), Group.BATCH
            ),
            "bf16": Group.PRECISION,
            **dict.fromkeys(("zero_optimization", "wall_clock_breakdown"), Group.RUN),
        }
    ),
)
_AUTO = "auto"
_TOP_LEVEL = {"pin_memory", "wall_clock_breakdown"}


def render_deepspeed(document: TrialFile) -> Rendered:
    """ZeRO-3 as the trial's settings tune it. The adapter is the format `peft`."""
    settings = document.training.zero
    zero: dict[str, Any] = {
        "stage": 3,
        "stage3_gather_16bit_weights_on_model_save": True,
        **settings.config.model_dump(exclude=_TOP_LEVEL),
    }
    if zero["reduce_bucket_size"] is None:
        zero["reduce_bucket_size"] = _AUTO
    offload = {"device": "cpu", "pin_memory": settings.config.pin_memory}
    if settings.offload_optimizer:
        zero["offload_optimizer"] = offload
    if settings.offload_parameters:
        zero["offload_param"] = offload
    config: dict[str, Any] = {
        "zero_optimization": zero,
        "bf16": {"enabled": _AUTO},
        "gradient_clipping": _AUTO,
        "train_batch_size": _AUTO,
        "train_micro_batch_size_per_gpu": _AUTO,
        "gradient_accumulation_steps": _AUTO,
        "wall_clock_breakdown": settings.config.wall_clock_breakdown,
        **_optimizer(document),
    }
    return Rendered(
        text=json_text(config) + "\n",
        values=LAYOUT.values(config),
        media_type="application/json",
        file_name="deepspeed.json",
        dropped=lost(document, _SAID),
    )


def _optimizer(document: TrialFile) -> dict[str, Any]:
    """Other optimizers are transformers' own, which DeepSpeed has to be told to allow."""
    if document.parameters.optimizer != "adamw":
        return {"zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False}
    filled = dict.fromkeys(("lr", "betas", "eps", "weight_decay"), _AUTO)
    return {"optimizer": {"type": "AdamW", "params": filled}}
