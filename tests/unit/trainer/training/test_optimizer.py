"""AdamW with LoRA+ groups, and its state from one process to the next."""

import pytest
import torch
from torch import nn

from trainer.common.errors import SnapshotError
from trainer.spec import Parameters
from trainer.training.optimizer import make_optimizer, optimizer_state, restore_optimizer, set_learning_rate

NAMES = ("m.lora_A.weight", "m.lora_B.weight", "m.lora_magnitude_vector")


def fresh() -> dict[str, nn.Parameter]:
    draws = torch.Generator().manual_seed(0)
    shapes = ((4, 6), (5, 4), (5,))
    return {name: nn.Parameter(torch.randn(shape, generator=draws)) for name, shape in zip(NAMES, shapes, strict=True)}


def take_steps(optimizer: torch.optim.Optimizer, weights: dict[str, nn.Parameter], steps: range) -> None:
    for step in steps:
        for number, weight in enumerate(weights.values()):
            weight.grad = torch.cos(weight.detach() * (step + number + 1))
        set_learning_rate(optimizer, 1e-2 / (step + 1))
        optimizer.step()


@pytest.mark.parametrize("ratio", [1.0, 16.0])
def test_loraplus_raises_the_rate_of_all_but_a(ratio: float) -> None:
    """Each weight moves as under an AdamW of its own at its own rate; decay goes with the rate."""
    values = Parameters(loraplus_lr_ratio=ratio, weight_decay=0.1, adam_beta1=0.8, adam_beta2=0.95, adam_epsilon=1e-6)
    weights, expected = fresh(), fresh()
    take_steps(make_optimizer(weights, values), weights, range(3))
    for number, (name, weight) in enumerate(expected.items()):
        optimizer = torch.optim.AdamW([weight], betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)
        for step in range(3):
            optimizer.param_groups[0]["lr"] = 1e-2 / (step + 1) * (1 if "lora_A" in name else ratio)
            weight.grad = torch.cos(weight.detach() * (step + number + 1))
            optimizer.step()
        torch.testing.assert_close(weights[name], weight, atol=1e-7, rtol=0)


@pytest.mark.parametrize("ratio", [1.0, 16.0])
def test_a_restored_optimizer_goes_on_to_the_bit(ratio: float) -> None:
    values = Parameters(loraplus_lr_ratio=ratio, weight_decay=0.1)
    whole, part = fresh(), fresh()
    take_steps(make_optimizer(whole, values), whole, range(6))
    optimizer = make_optimizer(part, values)
    take_steps(optimizer, part, range(4))
    state = optimizer_state(optimizer, part)
    resumed = {name: nn.Parameter(weight.detach().clone()) for name, weight in part.items()}
    other = make_optimizer(resumed, values)
    restore_optimizer(other, resumed, state, 4)
    assert all(torch.equal(resumed[name], part[name]) for name in NAMES)
    take_steps(other, resumed, range(4, 6))
    assert all(torch.equal(resumed[name], whole[name]) for name in NAMES)


def test_there_is_no_state_before_the_first_step() -> None:
    weights = fresh()
    optimizer = make_optimizer(weights, Parameters())
    assert optimizer_state(optimizer, weights) == {}
    restore_optimizer(optimizer, weights, {}, 0)
    assert not optimizer.state


@pytest.mark.parametrize("harm", ["missing", "shape", "dtype"])
def test_a_state_that_does_not_fit_is_refused(harm: str) -> None:
    weights = fresh()
    optimizer = make_optimizer(weights, Parameters())
    take_steps(optimizer, weights, range(1))
    state = optimizer_state(optimizer, weights)
    key = f"exp_avg_sq.{NAMES[1]}"
    if harm == "missing":
        del state[key]
    else:
        state[key] = state[key][:2] if harm == "shape" else state[key].double()
    with pytest.raises(SnapshotError, match=f"lacks exp_avg_sq of {NAMES[1]}"):
        restore_optimizer(make_optimizer(weights, Parameters()), weights, state, 1)
