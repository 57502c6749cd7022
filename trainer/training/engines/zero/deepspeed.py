"""What we rely on in DeepSpeed (0.19), and its start."""

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import nn

from trainer.common.errors import UserError
from trainer.distributed.ranks import Ranks

Result = TypeVar("Result")


class Partitioned(Protocol):
    """A parameter that is cut into equal flat parts, the last one filled up; `ds_tensor` is this rank's."""

    ds_id: int
    ds_shape: torch.Size
    ds_numel: int
    ds_tensor: torch.Tensor

    def partition_numel(self) -> int:
        """Elements of a part."""


class ZeroOptimizer(Protocol):
    """DeepSpeed's optimizer around a torch AdamW, for the trained parameters.

    They are kept in sub-groups (`fp16_groups`, whatever the dtype), each in one flat float32 tensor of this rank's
    parts, which AdamW steps; forward passes gather from `fp16_partitioned_groups_flat`, which may be the same memory.
    `averaged_gradients` has this rank's parts of the gradient, unless the optimizer is offloaded: then `.grad` of
    the flat tensors has.
    """

    fp16_groups: list[list[Partitioned]]
    fp16_partitioned_groups_flat: list[torch.Tensor]
    fp32_partitioned_groups_flat: list[torch.Tensor]
    averaged_gradients: dict[int, list[torch.Tensor]]
    offload_optimizer: bool
    optimizer: torch.optim.AdamW
    clip_grad: float

    def empty_partition_cache(self) -> None:
        """Drop everything that was gathered."""

    def zero_grad(self) -> None:
        """Start the accumulation of a gradient anew."""


class ZeroModule(Protocol):
    """DeepSpeed's engine, around a module `Within` a model."""

    optimizer: ZeroOptimizer
    global_steps: int
    global_samples: int
    micro_steps: int
    skipped_steps: int

    def __call__(self, function: Callable[..., Result], *values: object) -> Result:
        """`function(*values)`, in which modules of the model may be called."""

    def set_gradient_accumulation_boundary(self, is_boundary: bool) -> None:
        """Whether the next backward pass is the last one before a step."""

    def backward(self, loss: torch.Tensor, *, scale_wrt_gas: bool) -> None:
        """Add the gradient of `loss`, averaged over the ranks."""

    def step(self) -> None:
        """Clip, let AdamW step, and let the next forward pass see it."""

    def destroy(self) -> None:
        """Take all hooks off the model and free the optimizer."""


class Within(nn.Module):
    """Runs a function inside the forward pass of a module that holds `model`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., Result], *values: object) -> Result:
        """`function(*values)`."""
        return function(*values)


def load_deepspeed(ranks: Ranks) -> None:
    """Start DeepSpeed on the process group that `ranks` is of. Raises UserError if it is not installed."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    try:
        deepspeed = import_module("deepspeed")
    except ImportError as error:
        raise UserError(f"training on {ranks.size} ranks needs DeepSpeed: pip install 'hpo-service[zero]'") from error
    # On a CPU it would compile an operation for inference at its start, which takes a minute and serves nothing here.
    vars(import_module("deepspeed.ops"))["__compatible_ops__"] = {}
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)


def wrap(model: nn.Module, optimizer: torch.optim.AdamW, config: dict[str, Any]) -> ZeroModule:
    """DeepSpeed's engine around `model`, whose frozen parameters are partitioned and whose others will be."""
    engine, *_ = import_module("deepspeed").initialize(model=Within(model), optimizer=optimizer, config=config)
    return cast(ZeroModule, engine)
