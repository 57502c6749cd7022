"""How a LoRA layer computes: plain LoRA in fewer passes than PEFT's own way, frozen offsets, DoRA by our clock."""

from typing import cast

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import LoraLayer, LoraVariant
from peft.utils.integrations import dequantize_module_weight
from torch import nn


class PlainVariant(LoraVariant):
    """LoRA: `result` + scaling·B·A·x. Scaling and sum belong to the product with B, so neither is a pass of its own."""

    def forward(  # type: ignore[override]
        self, module: LoraLayer, active_adapter: str, x: torch.Tensor, result: torch.Tensor, **kwargs: object
    ) -> torch.Tensor:
        """`result` [..., out] is the base's output for `x` [..., in]; the layer's output."""
        hidden = module.lora_A[active_adapter](module.lora_dropout[active_adapter](x)).flatten(0, -2)
        b = cast(torch.Tensor, module.lora_B[active_adapter].weight)
        flat = result.flatten(0, -2).to(hidden.dtype)
        return torch.addmm(flat, hidden, b.t(), alpha=module.scaling[active_adapter]).view(result.shape)


class TrialVariant(LoraVariant):
    """DoRA if there is a `magnitude` [out]; with `frozen`, a base that acts as if s·B0·A0 had been taken out of it.

    `frozen` is (A0 [r, in], B0 [out, r]). The adapter sees dropped inputs and the frozen product whole ones, as if it
    were part of the base. At the start, without dropout, the layer is the base to the bit.
    """

    def __init__(self, magnitude: nn.Parameter | None, frozen: tuple[torch.Tensor, torch.Tensor] | None) -> None:
        self._magnitude = magnitude
        self._frozen = frozen

    def forward(  # type: ignore[override]
        self, module: LoraLayer, active_adapter: str, x: torch.Tensor, result: torch.Tensor, **kwargs: object
    ) -> torch.Tensor:
        """`result` [..., out] is the base's output for `x` [..., in]; the layer's output."""
        scaling: float = module.scaling[active_adapter]
        dropped: torch.Tensor = module.lora_dropout[active_adapter](x)
        trained: torch.Tensor = module.lora_B[active_adapter](module.lora_A[active_adapter](dropped))
        delta = self._less_frozen(trained, x) * scaling
        if self._magnitude is None:
            return result + delta
        base = _linear(module.get_base_layer())
        direction, direction_delta = result, delta
        if dropped is not x:
            direction = base(dropped.to(result.dtype))
            direction_delta = self._less_frozen(trained, dropped) * scaling
        if base.bias is not None:
            direction = direction - base.bias
        norms = self._row_norms(module, active_adapter)
        return result + delta + (self._magnitude / norms - 1) * (direction + direction_delta)

    def _less_frozen(self, trained: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        if self._frozen is None:
            return trained
        a, b = self._frozen
        return trained - F.linear(F.linear(x, a), b)

    @torch.no_grad()
    def _row_norms(self, module: LoraLayer, active_adapter: str) -> torch.Tensor:
        """Norm of every row of the base weight with the adapter's product added [out], a constant to gradients."""
        product = _linear(module.lora_B[active_adapter]).weight @ _linear(module.lora_A[active_adapter]).weight
        if self._frozen is not None:
            product -= self._frozen[1] @ self._frozen[0]
        weight = dequantize_module_weight(module.get_base_layer()).float()
        norms: torch.Tensor = torch.linalg.norm(weight + module.scaling[active_adapter] * product, dim=1)
        return norms


def _linear(module: nn.Module) -> nn.Linear:
    return cast(nn.Linear, module)
