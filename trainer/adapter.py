"""Named LoRA adapters on a shared base, held by PEFT, initialized and dropped out by private streams."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig
from peft.functional import inject_adapter_in_model, set_adapter
from peft.tuners.lora import LoraLayer
from torch import nn

from trainer.dropout import DropoutClock, KeyedDropout
from trainer.errors import UserError
from trainer.keys import stream_key
from trainer.model import BaseModel
from trainer.spec import Parameters

_PEFT_PREFIX = "base_model.model."
_GROUPS = {"attention": ("attn", "attention"), "mlp": ("mlp", "feed_forward", "ffn")}


@dataclass(frozen=True)
class Adapter:
    """One trial's LoRA on the base.

    `weights` are the trainable float32 parameters under their PEFT names
    (`base_model.model.<module>.lora_A.weight` [r, in], `...lora_B.weight` [out, r]).
    """

    name: str
    layers: tuple[LoraLayer, ...]
    weights: dict[str, nn.Parameter]
    clock: DropoutClock
    config_json: str

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The trainable parameters in the order of their names."""
        return list(self.weights.values())


def target_modules(linear_modules: Iterable[str], wanted: str) -> list[str]:
    """Full names of the linear modules that `wanted` selects, sorted.

    `wanted` is `all-linear`, `attention`, `mlp`, or comma-separated module names such as `q_proj,v_proj`.

    Raises:
        UserError: a name matches nothing; the message says what exists.
    """
    modules = sorted(linear_modules)
    if wanted == "all-linear":
        chosen = set(modules)
    elif wanted in _GROUPS:
        chosen = {name for name in modules if _is_inside(name, _GROUPS[wanted])}
    else:
        chosen = set()
        for suffix in wanted.split(","):
            matches = {name for name in modules if name == suffix or name.endswith(f".{suffix}")}
            if not suffix or not matches:
                raise UserError(f"target module {suffix!r} is not in the model; it has {', '.join(_last(modules))}")
            chosen |= matches
    if not chosen:
        raise UserError(f"target_modules {wanted!r} matches no linear layer; the model has {', '.join(_last(modules))}")
    return sorted(chosen)


def add_adapter(base: BaseModel, name: str, parameters: Parameters, seed: int) -> Adapter:
    """Put a freshly initialized adapter on the base: A uniform, keyed by (seed, module), B zero. None is active then.

    Raises:
        UserError: `target_modules` names what the model does not have.
    """
    modules = target_modules(base.linear_modules, parameters.target_modules)
    config = _config(base, parameters, modules)
    # PEFT warns of several adapters if it finds the configuration of another one here.
    base.model.__dict__.pop("peft_config", None)
    # On the meta device PEFT allocates and draws nothing, so the global random stream stays untouched.
    inject_adapter_in_model(config, base.model, name, low_cpu_mem_usage=True)
    set_adapter(base.model, [])
    clock = DropoutClock()
    layers: list[LoraLayer] = []
    weights: dict[str, nn.Parameter] = {}
    for module_name in modules:
        layer = base.model.get_submodule(module_name)
        linear = layer.get_base_layer() if isinstance(layer, LoraLayer) else None
        if not isinstance(layer, LoraLayer) or not isinstance(linear, nn.Linear):
            raise UserError(f"module {module_name} cannot hold an adapter")
        for part, weight in _initial(linear, parameters.lora_r, seed, module_name).items():
            parameter = nn.Parameter(weight.to(base.device))
            getattr(layer, part)[name].weight = parameter
            weights[f"{_PEFT_PREFIX}{module_name}.{part}.weight"] = parameter
        layer.lora_dropout[name] = KeyedDropout(parameters.lora_dropout, seed, module_name, clock)
        layers.append(layer)
    return Adapter(name, tuple(layers), dict(sorted(weights.items())), clock, _config_json(config))


def activate_adapter(adapter: Adapter) -> None:
    """Let the next forward passes go through this adapter; the one that was active must have been deactivated."""
    for layer in adapter.layers:
        layer.set_adapter(adapter.name)


def deactivate_adapter(adapter: Adapter) -> None:
    """Keep the next forward passes out of this adapter."""
    for layer in adapter.layers:
        layer.set_adapter([])


def remove_adapter(adapter: Adapter) -> None:
    """Take an adapter that is not active off the base and free its weights."""
    for layer in adapter.layers:
        layer.delete_adapter(adapter.name)


def _is_inside(module_name: str, words: tuple[str, ...]) -> bool:
    return any(word in part for part in module_name.split(".")[:-1] for word in words)


def _last(modules: Iterable[str]) -> list[str]:
    return sorted({name.rpartition(".")[2] for name in modules})


def _config(base: BaseModel, parameters: Parameters, modules: list[str]) -> LoraConfig:
    names = _last(modules)
    by_name = {name for name in base.linear_modules if name.rpartition(".")[2] in names}
    alpha = parameters.lora_alpha
    return LoraConfig(
        r=parameters.lora_r,
        lora_alpha=int(alpha) if alpha.is_integer() else alpha,  # type: ignore[arg-type]
        lora_dropout=parameters.lora_dropout,
        target_modules=names if by_name == set(modules) else modules,
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base.spec.path,
    )


def _config_json(config: LoraConfig) -> str:
    fields: dict[str, Any] = {**config.to_dict(), "inference_mode": True}  # type: ignore[no-untyped-call]
    return json.dumps(fields, indent=2, sort_keys=True, default=_plain) + "\n"


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, set | frozenset) else str(value)


def _initial(linear: nn.Linear, rank: int, seed: int, module_name: str) -> dict[str, torch.Tensor]:
    """A uniform as PEFT draws it, B zero; on the CPU, so that every device starts from the same numbers."""
    generator = torch.Generator().manual_seed(stream_key("init", seed, module_name))
    bound = 1 / math.sqrt(linear.in_features)
    a = torch.empty(rank, linear.in_features).uniform_(-bound, bound, generator=generator)
    return {"lora_A": a, "lora_B": torch.zeros(linear.out_features, rank)}
