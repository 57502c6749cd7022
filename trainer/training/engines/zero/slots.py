"""The adapter that all trials of a worker group share: allocated once, at the largest rank, on all modules."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from peft.functional import inject_adapter_in_model, set_adapter
from peft.tuners.lora import LoraLayer
from torch import nn

from trainer.common.errors import SnapshotError, UserError
from trainer.common.target_modules import target_modules
from trainer.model.adapter import lora_config, lora_scaling
from trainer.model.adapter_init import start_of
from trainer.model.base_model import BaseModel
from trainer.model.keyed_dropout import KeyedDropout, NoiseClock
from trainer.model.neftune import NeftuneNoise
from trainer.spec import Parameters, TrialSpec

_NAME = "trial"
_A, _B = "lora_A", "lora_B"


@dataclass(frozen=True)
class Room:
    """The largest adapter that fits: `modules` are full names, `rank` is that of every one."""

    rank: int
    modules: tuple[str, ...]


def room_for(spec: TrialSpec, linear_modules: tuple[str, ...]) -> Room:
    """The room that the spec asks for, at least its own trial's. Raises UserError: the trial does not fit into it."""
    parameters, zero = spec.parameters, spec.training.zero
    room = Room(
        zero.max_lora_r or parameters.lora_r,
        tuple(target_modules(linear_modules, zero.target_modules or parameters.target_modules)),
    )
    if parameters.lora_r > room.rank:
        raise UserError(
            f"lora_r {parameters.lora_r} is above training.zero.max_lora_r {room.rank}, at which adapters are allocated"
        )
    missing = set(target_modules(linear_modules, parameters.target_modules)) - set(room.modules)
    if missing:
        raise UserError(
            f"target_modules {parameters.target_modules} names {min(missing)}, which is not among "
            f"training.zero.target_modules {zero.target_modules}, on which adapters are allocated"
        )
    return room


class Slots:
    """Adapters on every module of a room, all zero at first. Rows of A and columns of B beyond a trial's rank are zero.

    Zero rows of A with zero columns of B get gradients of exactly zero, and AdamW leaves them zero, so the larger
    adapter computes what the trial's own would. The same holds for modules that a trial does not target.
    """

    def __init__(self, base: BaseModel, room: Room, example: Parameters) -> None:
        """Put the adapters on the base. Raises UserError: a module cannot hold one."""
        self.room = room
        self.clock = NoiseClock()
        self._base = base
        self._noise: NeftuneNoise | None = None
        self._layers: dict[str, LoraLayer] = {}
        self._dropouts: list[KeyedDropout] = []
        self.weights: dict[str, nn.Parameter] = {}
        largest = example.model_copy(update={"lora_r": room.rank})
        # On the meta device PEFT allocates and draws nothing.
        config = lora_config(base, largest, list(room.modules))
        inject_adapter_in_model(config, base.model, _NAME, low_cpu_mem_usage=True)
        set_adapter(base.model, _NAME)
        for module_name in room.modules:
            layer = base.model.get_submodule(module_name)
            if not isinstance(layer, LoraLayer):
                raise UserError(f"module {module_name} cannot hold an adapter")
            linear = _linear(layer)
            down = nn.Parameter(torch.zeros(room.rank, linear.in_features, device=base.device))
            up = nn.Parameter(torch.zeros(linear.out_features, room.rank, device=base.device))
            layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight = down, up
            dropout = layer.lora_dropout[_NAME] = KeyedDropout(0.0, module_name, self.clock)
            self._dropouts.append(dropout)
            self._layers[module_name] = layer
            self.weights |= {peft_name(module_name, _A): down, peft_name(module_name, _B): up}

    def hold(self, parameters: Parameters) -> None:
        """Compute as a trial with `parameters` does from now on."""
        scaling = lora_scaling(parameters)
        for layer in self._layers.values():
            layer.scaling[_NAME] = scaling
        for dropout in self._dropouts:
            dropout.p = parameters.lora_dropout
        if self._noise is not None:
            self._noise.detach()
            self._noise = None
        if parameters.neftune_noise_alpha > 0:
            self._noise = NeftuneNoise(parameters.neftune_noise_alpha, self._base.embedding, self.clock)
            self._noise.attach()

    def modules(self, parameters: Parameters) -> list[str]:
        """Full names of the modules that a trial targets."""
        return target_modules(self._base.linear_modules, parameters.target_modules)

    def start(self, parameters: Parameters, seed: int) -> dict[str, torch.Tensor]:
        """What an adapter of the trial holds before it is trained, in the trial's own rank, by PEFT name."""
        started = {}
        for module_name in self.modules(parameters):
            linear = _linear(self._layers[module_name])
            shape = (linear.out_features, linear.in_features)
            # Only the shape of the weight matters for the default start.
            start = start_of(
                torch.zeros(1).expand(shape), "default", parameters.lora_r, lora_scaling(parameters), seed, module_name
            )
            started[peft_name(module_name, _A)], started[peft_name(module_name, _B)] = start.a, start.b
        return started

    def elements(self, parameters: Parameters) -> int:
        """Trainable parameters of the trial's own adapter."""
        linears = [_linear(self._layers[module_name]) for module_name in self.modules(parameters)]
        return parameters.lora_r * sum(linear.in_features + linear.out_features for linear in linears)

    def shape(self, name: str) -> tuple[int, int]:
        """Shape of the allocated parameter, which no rank holds."""
        rows, columns = getattr(self.weights[name], "ds_shape", self.weights[name].shape)
        return rows, columns

    def widened(self, tensors: Mapping[str, torch.Tensor], rank: int) -> dict[str, torch.Tensor]:
        """A trial's tensors of rank `rank` in the shapes that are allocated, filled up with zeros.

        Raises:
            SnapshotError: they are not of such a trial.
        """
        wide = {}
        for name in self.weights:
            rows, columns = self.shape(name)
            full = wide[name] = torch.zeros(rows, columns)
            own = full[:rank] if _is_down(name) else full[:, :rank]
            tensor = tensors.get(name)
            if tensor is not None and tensor.shape != own.shape:
                raise SnapshotError(f"the snapshot's {name} is {list(tensor.shape)}, the trial's {list(own.shape)}")
            if tensor is not None:
                own.copy_(tensor)
        return wide

    def narrowed(self, name: str, full: torch.Tensor, rank: int) -> torch.Tensor:
        """A trial's own part of an allocated parameter that was gathered."""
        return (full[:rank] if _is_down(name) else full[:, :rank]).clone()

    @property
    def down(self) -> list[nn.Parameter]:
        """All A."""
        return [weight for name, weight in self.weights.items() if _is_down(name)]

    @property
    def up(self) -> list[nn.Parameter]:
        """All B."""
        return [weight for name, weight in self.weights.items() if not _is_down(name)]


def peft_name(module_name: str, part: str) -> str:
    """The name under which PEFT saves the weight of `part` (lora_A or lora_B) of a module."""
    return f"base_model.model.{module_name}.{part}.weight"


def names_of(modules: list[str]) -> list[str]:
    """PEFT names of the adapters of these modules, sorted."""
    return sorted(peft_name(module_name, part) for module_name in modules for part in (_A, _B))


def _linear(layer: LoraLayer) -> nn.Linear:
    return cast(nn.Linear, layer.get_base_layer())


def _is_down(name: str) -> bool:
    return name.endswith(f".{_A}.weight")
