"""An adapter folder in PEFT's format, and what it adds to each weight of its base."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError
from safetensors.torch import load_file

from trainer.common.errors import UserError
from trainer.common.model_files import read_json
from trainer.export.folders import files_digest

_WEIGHTS = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
_NAME = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<part>A|B|magnitude_vector)(\.weight)?$")
#: settings that change what the adapter computes and that a merge of A and B would miss
_UNSUPPORTED = (
    "modules_to_save",
    "fan_in_fan_out",
    "lora_bias",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "monteclora_config",
)
#: starts that leave the base as it is; all others take directions out of it
_NEUTRAL_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class LoraPair:
    """What one module gets: `a` [r, in], `b` [out, r], `magnitude` [out] for DoRA."""

    a: torch.Tensor
    b: torch.Tensor
    scaling: float
    magnitude: torch.Tensor | None

    def merged(self, weight: torch.Tensor) -> torch.Tensor:
        """W + scaling * B A [out, in] float32; with DoRA each row scaled to its magnitude."""
        total: torch.Tensor = weight.float() + self.scaling * (self.b.float() @ self.a.float())
        if self.magnitude is None:
            return total
        norms: torch.Tensor = torch.linalg.norm(total, dim=1)
        return total * (self.magnitude.float() / norms)[:, None]


@dataclass(frozen=True)
class LoraFile:
    """The adapter in `folder`: its configuration, and a pair for each module's full name."""

    folder: Path
    config: dict[str, Any]
    pairs: dict[str, LoraPair]

    def digest(self) -> str:
        """SHA-256 over the adapter's two files."""
        return files_digest(self.folder, [self.folder / _WEIGHTS, self.folder / _CONFIG])


def read_lora(folder: Path) -> LoraFile:
    """Read and check an adapter.

    Raises:
        UserError: it is no LoRA adapter in safetensors, is damaged, or has parts that cannot be merged.
    """
    if not (folder / _WEIGHTS).is_file():
        raise UserError(f"adapter {folder} has no {_WEIGHTS}; other formats can run code and are not read")
    config = read_json(folder / _CONFIG)
    _check_config(folder, config)
    try:
        tensors = load_file(folder / _WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise UserError(f"adapter {folder} cannot be read: {error}") from error
    modules: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        match = _NAME.match(name)
        if match is None:
            raise UserError(f"adapter {folder} holds {name}, which is no part of a LoRA on linear layers")
        modules.setdefault(match["module"], {})[match["part"]] = tensor
    if not modules:
        raise UserError(f"adapter {folder} is empty")
    return LoraFile(folder, config, {module: _pair(folder, config, module, parts) for module, parts in modules.items()})


def _check_config(folder: Path, config: Mapping[str, Any]) -> None:
    if "auto_map" in config:
        raise UserError(f"adapter {folder} wants to run its own code (auto_map), which is refused")
    if config.get("peft_type") != "LORA":
        raise UserError(f"adapter {folder} is of type {config.get('peft_type')}; only LORA can be merged")
    for name in _UNSUPPORTED:
        if config.get(name):
            raise UserError(f"adapter {folder} uses {name}, which cannot be merged")
    if config.get("bias", "none") != "none":
        raise UserError(f"adapter {folder} trains biases (bias: {config['bias']}), which cannot be merged")
    start = config.get("init_lora_weights")
    if start not in _NEUTRAL_STARTS:
        raise UserError(
            f"adapter {folder} starts from directions taken out of the base (init_lora_weights: {start}); "
            "export it at rank 2r with the default start"
        )


def _pair(folder: Path, config: Mapping[str, Any], module: str, parts: Mapping[str, torch.Tensor]) -> LoraPair:
    a, b, magnitude = parts.get("A"), parts.get("B"), parts.get("magnitude_vector")
    if a is None or b is None or a.dim() != 2 or b.dim() != 2 or a.shape[0] != b.shape[1]:
        raise UserError(f"adapter {folder}: A and B of {module} are missing or do not fit each other")
    rank = _of_module(config, "rank_pattern", module, "r")
    alpha = _of_module(config, "alpha_pattern", module, "lora_alpha")
    if rank != a.shape[0]:
        raise UserError(f"adapter {folder}: {module} has rank {a.shape[0]}, the configuration says {rank}")
    if bool(config.get("use_dora")) != (magnitude is not None):
        raise UserError(f"adapter {folder}: {module} and the configuration do not agree on use_dora")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in parts.values()):
        raise UserError(f"adapter {folder}: {module} holds values that are not finite")
    return LoraPair(a, b, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank), magnitude)


def _of_module(config: Mapping[str, Any], patterns: str, module: str, default: str) -> float:
    """A setting of one module: its pattern's, else the adapter's. Raises UserError if it is no positive number."""
    by_pattern = config.get(patterns) or {}
    value = by_pattern.get(get_pattern_key(list(by_pattern), module), config.get(default))
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise UserError(f"the adapter's configuration says {default} {value!r}, which is no positive number")
    return value
