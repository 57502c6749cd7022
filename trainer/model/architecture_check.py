"""Whether a model has the modules that adapters are to go on, without its weights: they are built on no device."""

from collections.abc import Sequence

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from trainer.common.errors import UserError
from trainer.common.target_modules import target_modules
from trainer.model.base_model import linear_modules


def require_targets(path: str, wanted: Sequence[str]) -> None:
    """Raise UserError that says of every value of `target_modules` in `wanted` what the model at `path` lacks."""
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"model {path} cannot be loaded: {reason}") from error
    modules, problems = linear_modules(model), list[str]()
    for value in wanted:
        try:
            target_modules(modules, value)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("; ".join(problems))
