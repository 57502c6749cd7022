"""Where an adapter starts: PEFT's default, or the base's own directions (PiSSA, OLoRA) beside a frozen copy of them."""

import math
from dataclasses import dataclass

import torch

from trainer.common.random_keys import stream_key

_OVERSAMPLING = 16
_POWER_ITERATIONS = 8


@dataclass(frozen=True)
class Start:
    """First values of one module's A [r, in] and B [out, r], float32.

    With `offset` the module computes B·A minus the frozen product of exactly these values, so that the base acts as if
    they had been taken out of it, and nothing is written to it.
    """

    a: torch.Tensor
    b: torch.Tensor
    offset: bool


def start_of(weight: torch.Tensor, init: str, rank: int, scaling: float, seed: int, module_name: str) -> Start:
    """The start of the module `module_name` with the base weight `weight` [out, in] float32, on the weight's device.

    `init` is `default` (A uniform as PEFT draws it, keyed by (seed, module); B zero), `pissa` (the `rank` largest
    singular directions) or `olora` (the first `rank` columns of Q and rows of R of the weight). Directions beyond the
    weight's smaller side start like the default.
    """
    generator = torch.Generator().manual_seed(stream_key("init", seed, module_name))
    bound = 1 / math.sqrt(weight.shape[1])
    a = torch.empty(rank, weight.shape[1]).uniform_(-bound, bound, generator=generator).to(weight.device)
    b = torch.zeros(weight.shape[0], rank, device=weight.device)
    if init == "default":
        return Start(a, b, offset=False)
    count = min(rank, *weight.shape)
    a[:count], b[:, :count] = _pissa(weight, count, scaling, module_name) if init == "pissa" else _olora(weight, count)
    return Start(a, b, offset=True)


def _pissa(weight: torch.Tensor, count: int, scaling: float, module_name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A and B whose product times `scaling` is the weight's best approximation of rank `count`, as PEFT splits it."""
    left, values, right = _largest_directions(weight, count, stream_key("pissa", module_name))
    roots = (values / scaling).sqrt()
    return roots[:, None] * right, left * roots


def _largest_directions(weight: torch.Tensor, count: int, key: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Left [out, count], values [count] and right [count, in] of a randomized SVD by subspace iteration."""
    sketched = min(count + _OVERSAMPLING, *weight.shape)
    sketch = torch.randn(weight.shape[1], sketched, generator=torch.Generator().manual_seed(key))
    basis = torch.linalg.qr(weight @ sketch.to(weight.device))[0]
    for _ in range(_POWER_ITERATIONS):
        basis = torch.linalg.qr(weight @ torch.linalg.qr(weight.T @ basis)[0])[0]
    inner, values, right = torch.linalg.svd(basis.T @ weight, full_matrices=False)
    return (basis @ inner)[:, :count], values[:count], right[:count]


def _olora(weight: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """R [count, in] and Q [out, count] of the weight; its first columns alone determine them."""
    q = torch.linalg.qr(weight[:, :count])[0]
    return q.T @ weight, q
