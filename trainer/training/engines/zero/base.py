"""A base model of which every rank holds a part."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

from trainer.common.errors import UserError
from trainer.data.batches import Batch
from trainer.distributed.ranks import Ranks
from trainer.model.base_model import BaseModel, Head, bit_sums, load_model, split_head
from trainer.spec import ModelSpec
from trainer.training.engines.zero.deepspeed import Partitioned, ZeroModule

Result = TypeVar("Result")


class PartitionedBase(BaseModel):
    """A base whose weights are cut into as many parts as there are ranks when they are made, and never put together.

    A layer's weights are gathered when it computes and dropped after it. `attach` must have been called before `nll`,
    and all ranks must call `nll` together.
    """

    def __init__(self, spec: ModelSpec, device: torch.device, ranks: Ranks, config: dict[str, Any]) -> None:
        """Load `spec.path` under DeepSpeed's `config`, all ranks together. Raises UserError, see `BaseModel`."""
        if spec.quantization != "none":
            raise UserError(f"quantization {spec.quantization} cannot be partitioned; use none, or ranks 1")
        self._ranks = ranks
        self._config = config
        self._engine: ZeroModule | None = None
        super().__init__(spec, device)

    def attach(self, engine: ZeroModule) -> None:
        """Compute through DeepSpeed's `engine`, whose module is `Within` this base's model, from now on."""
        self._engine = engine
        self._split = self._compute(split_head, self.model, self.device)

    def nll(self, batch: Batch) -> torch.Tensor:
        """See `BaseModel.nll`."""
        return self._compute(super().nll, batch)

    def check_packing(self) -> None:
        """See `BaseModel.check_packing`; all ranks together."""
        self._compute(super().check_packing)

    def _load(self) -> PreTrainedModel:
        # transformers partitions what it loads for as long as such a configuration lives.
        configuration = HfDeepSpeedConfig(self._config)  # type: ignore[no-untyped-call]
        try:
            return load_model(self.spec, self.attention, None, self.device)
        finally:
            unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]
            del configuration

    def _halves(self) -> Head | None:
        return None

    def _bit_sums(self) -> torch.Tensor:
        mine = torch.stack([bit_sums(_own_part(cast(Partitioned, weight), self._ranks)) for _, weight in self._weights])
        total = torch.zeros_like(mine)
        for part in self._ranks.gather(mine):
            total[:, 0] += part[:, 0]
            total[:, 1] ^= part[:, 1]
        return total

    def _compute(self, function: Callable[..., Result], *values: object) -> Result:
        assert self._engine is not None
        return self._engine(function, *values)


def _own_part(weight: Partitioned, ranks: Ranks) -> torch.Tensor:
    """This rank's elements of a partitioned weight, without what fills up the last part."""
    part = weight.ds_tensor
    start = ranks.rank * part.numel()
    return part.detach().flatten()[: max(0, min(part.numel(), weight.ds_numel - start))]
