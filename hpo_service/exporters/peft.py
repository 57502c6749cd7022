"""`adapter_config.json` for `peft.LoraConfig(**json)`."""

from types import MappingProxyType
from typing import Any

from hpo_service.core.export_groups import Group
from hpo_service.exporters.base import Rendered, json_text, names_not_in, settings_not_in
from hpo_service.exporters.target_modules import alpha, target_modules
from hpo_service.exporters.values import Layout
from trainer.spec import TrialFile

_KNOWN = frozenset(
    {"lora_r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "use_dora", "init_lora_weights"}
)

LAYOUT = Layout(
    groups=MappingProxyType(
        {
            **dict.fromkeys(("peft_type", "task_type", "bias"), Group.RUN),
            "base_model_name_or_path": Group.MODEL,
            **dict.fromkeys(
                ("r", "lora_alpha", "lora_dropout", "target_modules", "init_lora_weights", "use_rslora", "use_dora"),
                Group.HYPERPARAMETERS,
            ),
        }
    ),
)


def render_peft(document: TrialFile) -> Rendered:
    """The adapter's half of the trial; the optimizer's half is the format `hf`."""
    parameters = document.parameters
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": document.model.path,
        "r": parameters.lora_r,
        "lora_alpha": alpha(parameters.lora_alpha),
        "lora_dropout": parameters.lora_dropout,
        "target_modules": target_modules(parameters.target_modules),
        "bias": "none",
        "init_lora_weights": True if parameters.init_lora_weights == "default" else parameters.init_lora_weights,
        "use_rslora": parameters.use_rslora,
        "use_dora": parameters.use_dora,
    }
    return Rendered(
        text=json_text(config) + "\n",
        values=LAYOUT.values(config),
        media_type="application/json",
        file_name="adapter_config.json",
        dropped=(*names_not_in(document, _KNOWN), *settings_not_in(document)),
    )
