"""`adapter_config.json` for `peft.LoraConfig(**json)`."""

from typing import Any

from hpo_service.exporters.base import Rendered, json_text, names_not_in, settings_not_in
from hpo_service.exporters.target_modules import alpha, target_modules
from trainer.spec import TrialFile

_KNOWN = frozenset(
    {"lora_r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "use_dora", "init_lora_weights"}
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
        media_type="application/json",
        file_name="adapter_config.json",
        dropped=(*names_not_in(document, _KNOWN), *settings_not_in(document)),
    )
