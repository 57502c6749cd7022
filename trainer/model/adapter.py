"""Named LoRA adapters on a shared base, held by PEFT, initialized, dropped out and perturbed by private streams."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig
from peft.functional import inject_adapter_in_model, set_adapter
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from torch import nn

from trainer.common.errors import SnapshotError, UserError
from trainer.common.target_modules import last_parts, target_modules
from trainer.model.adapter_init import start_of
from trainer.model.adapter_layers import PlainVariant, TrialVariant
from trainer.model.base_model import BaseModel
from trainer.model.keyed_dropout import KeyedDropout, NoiseClock
from trainer.model.neftune import NeftuneNoise
from trainer.spec import Parameters

_PEFT_PREFIX = "base_model.model."
_A, _B, _MAGNITUDE = ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"


@dataclass(frozen=True)
class Adapter:
    """One trial's LoRA on the base.

    `weights` are the trainable float32 parameters under their PEFT names
    (`base_model.model.<module>.lora_A.weight` [r, in], `...lora_B.weight` [out, r], with DoRA
    `...lora_magnitude_vector` [out]). `frozen` holds the offsets of A and B under the same names, empty unless the
    adapter starts from the base's own directions.
    """

    name: str
    layers: tuple[LoraLayer, ...]
    weights: dict[str, nn.Parameter]
    frozen: dict[str, torch.Tensor]
    clock: NoiseClock
    noise: NeftuneNoise | None
    config_json: str

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The trainable parameters in the order of their names."""
        return list(self.weights.values())

    def export(self) -> dict[str, torch.Tensor]:
        """What stock PEFT loads with `config_json`, on the CPU. With offsets it is of rank 2r: [A; A0] and [B, -B0]."""
        exported = {}
        for name, weight in self.weights.items():
            frozen = self.frozen.get(name)
            if frozen is None:
                exported[name] = weight.detach().to("cpu", copy=True)
            elif name.endswith(_A):
                exported[name] = torch.cat([weight.detach(), frozen]).cpu()
            else:
                exported[name] = torch.cat([weight.detach(), -frozen], dim=1).cpu()
        return exported


def add_adapter(
    base: BaseModel, name: str, parameters: Parameters, seed: int, saved: Mapping[str, torch.Tensor] | None = None
) -> Adapter:
    """Put an adapter on the base, at its start or as `saved` (what `export` gave); it is not active then.

    Raises:
        UserError: `target_modules` names what the model does not have.
        SnapshotError: `saved` is not of such an adapter.
    """
    modules = target_modules(base.linear_modules, parameters.target_modules)
    tensors = _started(base, parameters, modules, seed) if saved is None else _restored(saved, parameters, modules)
    weights = {key: nn.Parameter(weight.to(base.device)) for key, (weight, _) in sorted(tensors.items())}
    frozen = {key: offset.to(base.device) for key, (_, offset) in sorted(tensors.items()) if offset is not None}
    config = lora_config(base, parameters, modules)
    # PEFT warns of several adapters if it finds the configuration of another one here.
    base.model.__dict__.pop("peft_config", None)
    # On the meta device PEFT allocates and draws nothing, so the global random stream stays untouched.
    inject_adapter_in_model(config, base.model, name, low_cpu_mem_usage=True)
    set_adapter(base.model, [])
    clock = NoiseClock()
    layers = []
    for module_name in modules:
        layer = base.model.get_submodule(module_name)
        if not isinstance(layer, LoraLayer):
            raise UserError(f"module {module_name} cannot hold an adapter")
        _fill(layer, name, f"{_PEFT_PREFIX}{module_name}", weights, frozen)
        layer.lora_dropout[name] = KeyedDropout(parameters.lora_dropout, module_name, clock)
        layers.append(layer)
    noise = None
    if parameters.neftune_noise_alpha > 0:
        noise = NeftuneNoise(parameters.neftune_noise_alpha, base.embedding, clock)
    config_json = exported_config_json(config, parameters)
    return Adapter(name, tuple(layers), weights, frozen, clock, noise, config_json)


def activate_adapter(adapter: Adapter) -> None:
    """Let the next forward passes go through this adapter; the one that was active must have been deactivated."""
    for layer in adapter.layers:
        layer.set_adapter(adapter.name)
    if adapter.noise is not None:
        adapter.noise.attach()


def deactivate_adapter(adapter: Adapter) -> None:
    """Keep the next forward passes out of this adapter."""
    for layer in adapter.layers:
        layer.set_adapter([])
    if adapter.noise is not None:
        adapter.noise.detach()


def remove_adapter(adapter: Adapter) -> None:
    """Take an adapter that is not active off the base and free its weights."""
    for layer in adapter.layers:
        layer.delete_adapter(adapter.name)


def lora_scaling(parameters: Parameters) -> float:
    """What B·A is multiplied by: alpha / r, with rsLoRA alpha / sqrt(r)."""
    rank = parameters.lora_r
    return parameters.lora_alpha / (math.sqrt(rank) if parameters.use_rslora else rank)


_Tensors = dict[str, tuple[torch.Tensor, torch.Tensor | None]]


@torch.no_grad()
def _started(base: BaseModel, parameters: Parameters, modules: list[str], seed: int) -> _Tensors:
    """(trained, frozen) by PEFT name for an adapter that has not been trained."""
    tensors: _Tensors = {}
    for module_name in modules:
        layer = base.model.get_submodule(module_name)
        linear = layer.get_base_layer() if isinstance(layer, LoraLayer) else layer
        weight = dequantize_module_weight(linear).float()
        start = start_of(
            weight, parameters.init_lora_weights, parameters.lora_r, lora_scaling(parameters), seed, module_name
        )
        key = f"{_PEFT_PREFIX}{module_name}"
        tensors[key + _A] = (start.a, start.a.clone() if start.offset else None)
        tensors[key + _B] = (start.b, start.b.clone() if start.offset else None)
        if parameters.use_dora:
            tensors[key + _MAGNITUDE] = (torch.linalg.norm(weight, dim=1), None)
    return tensors


def _restored(saved: Mapping[str, torch.Tensor], parameters: Parameters, modules: list[str]) -> _Tensors:
    """(trained, frozen) by PEFT name for an adapter that was exported."""
    parts = [_A, _B, _MAGNITUDE] if parameters.use_dora else [_A, _B]
    if saved.keys() != {f"{_PEFT_PREFIX}{module_name}{part}" for module_name in modules for part in parts}:
        raise SnapshotError("the snapshot's adapter is on other modules than the trial's")
    tensors: _Tensors = {}
    rank, offset = parameters.lora_r, parameters.init_lora_weights != "default"
    for key, tensor in saved.items():
        axis = None if key.endswith(_MAGNITUDE) else 0 if key.endswith(_A) else 1
        if axis is not None and tensor.shape[axis] != rank * (2 if offset else 1):
            raise SnapshotError(f"the snapshot's {key} is not of rank {rank}")
        if axis is None or not offset:
            tensors[key] = (tensor.clone(), None)
        elif axis == 0:
            tensors[key] = (tensor[:rank].clone(), tensor[rank:].clone())
        else:
            tensors[key] = (tensor[:, :rank].contiguous(), -tensor[:, rank:])
    return tensors


def _fill(
    layer: LoraLayer, name: str, key: str, weights: Mapping[str, nn.Parameter], frozen: Mapping[str, torch.Tensor]
) -> None:
    """Put the adapter's weights where PEFT made empty ones."""
    layer.lora_A[name].weight = weights[key + _A]
    layer.lora_B[name].weight = weights[key + _B]
    magnitude = weights.get(key + _MAGNITUDE)
    offset = (frozen[key + _A], frozen[key + _B]) if key + _A in frozen else None
    plain = magnitude is None and offset is None
    layer.lora_variant[name] = PlainVariant() if plain else TrialVariant(magnitude, offset)


def lora_config(base: BaseModel, parameters: Parameters, modules: list[str]) -> LoraConfig:
    """What PEFT is asked for: plain LoRA, which is then filled with what the trial wants."""
    names = last_parts(modules)
    by_name = {name for name in base.linear_modules if name.rpartition(".")[2] in names}
    return LoraConfig(
        r=parameters.lora_r,
        lora_alpha=_plain_number(parameters.lora_alpha),  # type: ignore[arg-type]
        lora_dropout=parameters.lora_dropout,
        use_rslora=parameters.use_rslora,
        target_modules=names if by_name == set(modules) else modules,
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base.spec.path,
    )


def exported_config_json(config: LoraConfig, parameters: Parameters) -> str:
    """The configuration that goes with `Adapter.export`; twice the rank with alpha such that the scaling stays."""
    fields: dict[str, Any] = config.to_dict()  # type: ignore[no-untyped-call]
    fields |= {"inference_mode": True, "use_dora": parameters.use_dora}
    if parameters.init_lora_weights != "default":
        factor = math.sqrt(2) if parameters.use_rslora else 2
        fields |= {"r": 2 * parameters.lora_r, "lora_alpha": _plain_number(parameters.lora_alpha * factor)}
    return json.dumps(fields, indent=2, sort_keys=True, default=_plain) + "\n"


def _plain_number(value: float) -> int | float:
    return int(value) if value.is_integer() else value


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, set | frozenset) else str(value)
