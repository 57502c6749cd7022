"""`adapter_config.json` for `peft.LoraConfig(**json)`."""

from typing import Any

from hpo_service.exporters.base import Rendered, json_text, names_not_in, settings_not_in
from trainer.spec import TrialFile

_KNOWN = frozenset(
    {"lora_r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "use_dora", "init_lora_weights"}
)
_LINEAR_ONLY = r"\.(?!.*(norm|rotary|act|drop)).*"
_GROUPS = {
    "attention": rf".*\.[^.]*(attn|attention)[^.]*{_LINEAR_ONLY}",
    "mlp": rf".*\.[^.]*(mlp|feed_forward|ffn)[^.]*{_LINEAR_ONLY}",
}


def render_peft(document: TrialFile) -> Rendered:
    """The adapter's half of the trial; the optimizer's half is the format `hf`."""
    parameters = document.parameters
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": document.model.path,
        "r": parameters.lora_r,
        "lora_alpha": int(parameters.lora_alpha) if parameters.lora_alpha.is_integer() else parameters.lora_alpha,
        "lora_dropout": parameters.lora_dropout,
        "target_modules": _target_modules(parameters.target_modules),
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


def _target_modules(names: str) -> str | list[str]:
    if names == "all-linear":
        return names
    return _GROUPS.get(names) or [name for name in names.split(",") if name]
