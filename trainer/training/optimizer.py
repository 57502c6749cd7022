"""A trial's own AdamW and its state by parameter name."""

import importlib.util
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from trainer.common.errors import SnapshotError, UserError
from trainer.spec import Parameters

# What bitsandbytes can compute again: the tables of its 8-bit numbers, and the count of steps.
_NOT_SAVED = ("step", "qmap1", "qmap2")


def check_optimizer(parameters: Parameters, device: torch.device) -> None:
    """Raises UserError if the optimizer that `parameters` names cannot run on `device`."""
    can_page = device.type == "cuda" and importlib.util.find_spec("bitsandbytes") is not None
    if parameters.optimizer == "paged_adamw_8bit" and not can_page:
        raise UserError("optimizer paged_adamw_8bit needs a CUDA device and the bitsandbytes package; use adamw")


def make_optimizer(weights: Mapping[str, nn.Parameter], parameters: Parameters) -> torch.optim.Optimizer:
    """The optimizer that `parameters` names over exactly `weights`, each of which is in its group for good.

    With LoRA+ all but the A matrices are a group of their own. `set_learning_rate` is to be called before each step.
    """
    groups = _groups(weights, parameters.loraplus_lr_ratio)
    settings: dict[str, Any] = {
        "lr": 0.0,
        "betas": (parameters.adam_beta1, parameters.adam_beta2),
        "eps": parameters.adam_epsilon,
        "weight_decay": parameters.weight_decay,
    }
    if parameters.optimizer == "adamw":
        return torch.optim.AdamW(groups, fused=True, **settings)
    from trainer.training.paged_optimizer import PagedAdamW8bit

    return PagedAdamW8bit(groups, **settings)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """The rate of the next step; that of LoRA+'s group is its ratio times higher."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["rate_ratio"]


def optimizer_state(optimizer: torch.optim.Optimizer, weights: Mapping[str, nn.Parameter]) -> dict[str, torch.Tensor]:
    """`<field>.<name>` on the CPU, such as `exp_avg.<name>`; empty before the first step."""
    return {
        f"{field}.{name}": value.to("cpu", copy=True)
        for name, weight in weights.items()
        for field, value in optimizer.state.get(weight, {}).items()
        if field not in _NOT_SAVED
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    weights: Mapping[str, nn.Parameter],
    state: Mapping[str, torch.Tensor],
    step: int,
) -> None:
    """Put `state`, taken after `step` steps, into a fresh optimizer. Raises SnapshotError if it does not fit."""
    if step == 0:
        return
    _allocate(optimizer)
    for name, weight in weights.items():
        fields = optimizer.state[weight]
        for field, value in fields.items():
            if field == "step":
                fields[field] = torch.full_like(value, step) if isinstance(value, torch.Tensor) else step
            elif field not in _NOT_SAVED:
                saved = state.get(f"{field}.{name}")
                if saved is None or saved.shape != value.shape or saved.dtype != value.dtype:
                    raise SnapshotError(f"the snapshot's optimizer lacks {field} of {name}")
                value.copy_(saved)


def release_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Free the optimizer's state; it is not used again."""
    release = getattr(optimizer, "release", None)
    if release is not None:
        release()
    optimizer.state.clear()


def _groups(weights: Mapping[str, nn.Parameter], ratio: float) -> list[dict[str, Any]]:
    """One group, or as PEFT's LoRA+ has it: A alone, B and DoRA's magnitudes at the higher rate."""
    if ratio == 1:
        return [{"params": list(weights.values()), "rate_ratio": 1.0}]
    faster = [not name.endswith(".lora_A.weight") for name in weights]
    slow = [weight for weight, fast in zip(weights.values(), faster, strict=True) if not fast]
    fast = [weight for weight, fast in zip(weights.values(), faster, strict=True) if fast]
    return [{"params": slow, "rate_ratio": 1.0}, {"params": fast, "rate_ratio": ratio}]


def _allocate(optimizer: torch.optim.Optimizer) -> None:
    """Let a fresh optimizer make its state: a step with zero gradients, at rate 0, which changes no weight."""
    for group in optimizer.param_groups:
        for weight in group["params"]:
            weight.grad = torch.zeros_like(weight)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
