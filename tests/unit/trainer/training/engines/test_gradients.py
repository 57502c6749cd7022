"""Gradients with dropout and noise on against finite differences, in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from trainer.data.batches import Batch
from trainer.model.adapter_layers import TrialVariant
from trainer.model.keyed_random import token_keys
from trainer.spec import TrialSpec
from trainer.training.engines.resident import ResidentEngine, ResidentTrial

STEP = 1e-6


class ExactNorm(nn.Module):
    """Llama's norm without its detour through float32."""

    def __init__(self, norm: LlamaRMSNorm) -> None:
        super().__init__()
        self.weight, self.epsilon = norm.weight, norm.variance_epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon)


def make_exact(engine: ResidentEngine, trial: ResidentTrial) -> None:
    """Everything in float64, and away from the start, where B and its pull on A are zero."""
    model = engine._base.model.double()
    for name, module in list(model.named_modules()):
        if isinstance(module, LlamaRMSNorm):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, ExactNorm(module))
    for layer in trial.adapter.layers:
        for variant in layer.lora_variant.values():
            if not isinstance(variant, TrialVariant):
                continue
            assert variant._frozen is not None
            a, b = variant._frozen
            variant._frozen = (a.double(), b.double())
    draws = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for weight in trial.adapter.parameters:
            weight.add_(torch.randn(weight.shape, generator=draws, dtype=torch.float64), alpha=0.2)


def loss_of(engine: ResidentEngine, trial: ResidentTrial, batch: Batch) -> torch.Tensor:
    engine._activate(trial)
    trial.adapter.clock.tokens = token_keys(trial.spec.training.seed, 16, batch)
    logits = engine._base.model(batch.input_ids, use_cache=False).logits.flatten(0, 1)
    return nn.functional.cross_entropy(logits[batch.positions], batch.targets)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"use_rslora": True, "neftune_noise_alpha": 5.0}, {"init_lora_weights": "pissa"}],
    ids=["default", "rslora_neftune", "pissa"],
)
def test_gradients_are_those_of_finite_differences(
    engine: ResidentEngine, make_spec: Callable[..., TrialSpec], options: dict[str, Any], checkpointing: bool
) -> None:
    trial = engine.admit(make_spec(lora_dropout=0.3, **options), None)
    make_exact(engine, trial)
    engine._base.use_activation_checkpointing(checkpointing)
    batch = trial.data.train.batch(trial.order.indices(16, 20), torch.device("cpu"))
    loss_of(engine, trial, batch).backward()  # type: ignore[no-untyped-call]
    draws = torch.Generator().manual_seed(5)
    for name, weight in trial.adapter.weights.items():
        assert weight.grad is not None
        direction = torch.randn(weight.shape, generator=draws, dtype=torch.float64)
        losses = []
        with torch.no_grad():
            for side in (STEP, -2 * STEP):
                weight.add_(direction, alpha=side)
                losses.append(loss_of(engine, trial, batch).item())
            weight.add_(direction, alpha=STEP)
        expected = (losses[0] - losses[1]) / (2 * STEP)
        assert (weight.grad * direction).sum().item() == pytest.approx(expected, rel=1e-5, abs=1e-8), name


def test_doras_gradients_are_those_of_its_formula(engine: ResidentEngine, make_spec: Callable[..., TrialSpec]) -> None:
    """DoRA holds its norms constant, so finite differences do not apply; one layer against its formula written out."""
    trial = engine.admit(make_spec(lora_dropout=0.3, use_dora=True, init_lora_weights="pissa"), None)
    make_exact(engine, trial)
    engine._activate(trial)
    prefix = "base_model.model.model.layers.1.mlp.down_proj"
    names = [f"{prefix}.{part}" for part in ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector")]
    a, b, magnitude = (trial.adapter.weights[name] for name in names)
    a0, b0 = (trial.adapter.frozen[name].double() for name in names[:2])
    layer: Any = engine._base.model.get_submodule(prefix.removeprefix("base_model.model."))
    batch = trial.data.train.batch(trial.order.indices(0, 4), torch.device("cpu"))
    draws = torch.Generator().manual_seed(5)
    x, pull = (torch.randn(*batch.input_ids.shape, n, generator=draws, dtype=torch.float64) for n in (128, 64))
    trial.adapter.clock.tokens = token_keys(0, 0, batch)
    d, w, s = layer.lora_dropout[trial.adapter.name](x), layer.get_base_layer().weight, 2.0
    residual = w - s * b0 @ a0
    norms = torch.linalg.norm(residual + s * b @ a, dim=1).detach()
    ratio = magnitude / norms
    expected = x @ residual.T + (ratio - 1) * (d @ residual.T) + ratio * s * (d @ a.T @ b.T)
    actual = layer(x)
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)
    ours, theirs = (torch.autograd.grad((y * pull).sum(), (a, b, magnitude)) for y in (actual, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-6)
