"""Which attention implementation a base model runs with: the best that device, dtype and architecture allow."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig
from transformers.utils.import_utils import is_flash_attn_2_available

from trainer.common.errors import UserError
from trainer.spec import AUTO, ModelSpec

_FLASH, _SDPA, _EAGER = "flash_attention_2", "sdpa", "eager"


def choose_attention(spec: ModelSpec, device: torch.device) -> str:
    """The implementation for `spec` on `device`: the fastest that runs if it is auto, which never fails.

    Raises:
        UserError: the one asked for cannot run.
    """
    flash_runs = device.type == "cuda" and spec.resolved_dtype == "bfloat16" and is_flash_attn_2_available()
    config = _config(spec)
    if spec.attention == AUTO:
        wanted = (_FLASH, _SDPA) if flash_runs else (_SDPA,)
        return next((each for each in wanted if config is None or _runs(config, each)), _EAGER)
    if spec.attention == _FLASH and not flash_runs:
        raise UserError("flash_attention_2 needs a CUDA device, bfloat16 and the flash-attn package; use auto")
    if config is not None and not _runs(config, spec.attention) and _runs(config, _EAGER):
        raise UserError(
            f"model.attention is {spec.attention}, which {config.model_type} models do not support; use auto, which "
            "takes what they do"
        )
    return spec.attention


def _config(spec: ModelSpec) -> PretrainedConfig | None:
    """None if it cannot be read: loading the model will say why."""
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(spec.path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError):
        return None
    return config


def _runs(config: PretrainedConfig, attention: str) -> bool:
    """Ask transformers, by making the model without memory for weights: it refuses what a part of it does not support.

    Some architectures take another implementation than the one asked for, which then does not count as running.
    """
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, attn_implementation=attention, trust_remote_code=False
            )
    except (ValueError, ImportError, OSError, RuntimeError):
        return False
    return bool(model.config.get_text_config()._attn_implementation == attention)
