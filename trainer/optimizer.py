"""A trial's own AdamW and its state by parameter name."""

from collections.abc import Mapping

import torch
from torch import nn

from trainer.errors import SnapshotError
from trainer.spec import Parameters

_MOMENTS = ("exp_avg", "exp_avg_sq")


def make_optimizer(weights: list[nn.Parameter], parameters: Parameters) -> torch.optim.AdamW:
    """AdamW over exactly `weights`; the learning rate is set before each step."""
    return torch.optim.AdamW(
        weights,
        lr=0.0,
        betas=(parameters.adam_beta1, parameters.adam_beta2),
        eps=parameters.adam_epsilon,
        weight_decay=parameters.weight_decay,
        fused=True,
    )


def optimizer_state(optimizer: torch.optim.AdamW, weights: Mapping[str, nn.Parameter]) -> dict[str, torch.Tensor]:
    """`exp_avg.<name>` and `exp_avg_sq.<name>` on the CPU; zeros before the first step."""
    return {
        f"{moment}.{name}": optimizer.state[weight][moment].to("cpu", copy=True)
        if weight in optimizer.state
        else torch.zeros_like(weight, device="cpu").detach()
        for name, weight in weights.items()
        for moment in _MOMENTS
    }


def restore_optimizer(
    optimizer: torch.optim.AdamW,
    weights: Mapping[str, nn.Parameter],
    state: Mapping[str, torch.Tensor],
    step: int,
) -> None:
    """Put `state`, taken after `step` steps, into a fresh optimizer. Raises SnapshotError if something is missing."""
    if step == 0:
        return
    for name, weight in weights.items():
        moments: dict[str, torch.Tensor] = {"step": torch.tensor(float(step), device=weight.device)}
        for moment in _MOMENTS:
            saved = state.get(f"{moment}.{name}")
            if saved is None or saved.shape != weight.shape:
                raise SnapshotError(f"the snapshot's optimizer lacks {moment} of {name}")
            moments[moment] = torch.empty_like(weight, requires_grad=False).copy_(saved)
        optimizer.state[weight] = moments
