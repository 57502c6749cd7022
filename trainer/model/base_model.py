"""The frozen base model: loading it from a local folder, its digest, and the loss of a batch."""

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from trainer.accounting.devices import auto_dtype
from trainer.accounting.meter import ModelShape
from trainer.common.errors import BaseChangedError, UserError
from trainer.common.model_files import check_model_files, positions_of
from trainer.data.batches import Batch
from trainer.data.tokenizer import load_tokenizer
from trainer.model.attention import choose_attention
from trainer.spec import ModelSpec

_RECOMPUTE: Any = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
#: largest differences that another neighbour (none but for rounding) and packing (rounding of the dtype) may make to
#: the logits of an example, relative to the largest of them
_NEIGHBOUR_TOLERANCE = 1e-3
_PACKING_TOLERANCE = 0.05
_INTEGER_OF_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Head:
    """A model that is exactly `head(decoder(ids))`, so that logits can be computed where they are needed only."""

    decoder: nn.Module
    head: nn.Module


class BaseModel:
    """A base model on its device, never trained and never written to.

    Attributes:
        spec: what was loaded, with the dtype that it is computed in.
        attention: the implementation that was chosen.
        max_positions: longest row that the model was built for, None if it does not say.
        linear_modules: full names of the linear layers that an adapter may target (not the output head).
        digest: identity of the weights: names, shapes, dtypes and exact integer sums of their bits.
    """

    def __init__(self, spec: ModelSpec, device: torch.device) -> None:
        """Load `spec.path`. Raises UserError if it is no loadable model folder."""
        config = check_model_files(Path(spec.path))
        self.max_positions = positions_of(config)
        self.spec = spec.in_dtype(auto_dtype(device))
        self.device = device
        self.attention = choose_attention(self.spec, device)
        self.model = self._load()
        self.tokenizer = load_tokenizer(spec.path)
        self.model.requires_grad_(False)
        self.model.eval()  # type: ignore[no-untyped-call]
        self.linear_modules = linear_modules(self.model)
        self.shape = _shape(self.model)
        self._weights = list(_frozen_tensors(self.model))
        self.digest = self._compute_digest()
        self._split = self._halves()
        self._checkpointing = False
        self._packs: bool | None = None

    @property
    def embedding(self) -> nn.Module:
        """The module that turns token ids into vectors."""
        embedding: nn.Module = self.model.get_input_embeddings()
        return embedding

    @property
    def has_head_apart(self) -> bool:
        """Whether logits can be computed of chosen tokens only."""
        return self._split is not None

    def nll(self, batch: Batch) -> torch.Tensor:
        """Negative log-likelihood of every response token of the batch, [response_tokens] float32.

        Rows are padded on the right and attention is causal, so no mask is needed: padding cannot reach a token. In a
        packed batch positions start anew with every example, from which transformers makes attention block-diagonal
        where `check_packing` says so.
        """
        inputs: dict[str, Any] = {"input_ids": batch.input_ids, "use_cache": False}
        if batch.packed:
            inputs |= self._packed_inputs(batch.input_ids, batch.offset_of)
        if self._split is None:
            logits = self.model(**inputs).logits
            picked = logits.flatten(0, 1).index_select(0, batch.positions)
        else:
            hidden = self._split.decoder(**inputs).last_hidden_state
            picked = self._split.head(hidden.flatten(0, 1).index_select(0, batch.positions))
        return F.cross_entropy(picked.float(), batch.targets, reduction="none")

    def _packed_inputs(self, ids: torch.Tensor, offsets: torch.Tensor) -> dict[str, torch.Tensor]:
        # Flash attention takes packed examples in a single row only.
        if self.attention == "flash_attention_2":
            ids, offsets = ids.reshape(1, -1), offsets.reshape(1, -1)
        return {"input_ids": ids, "position_ids": offsets}

    @torch.no_grad()
    def check_packing(self) -> None:
        """Try it, once: an example's logits must not depend on what lies before it, whatever adapter is active.

        Raises:
            UserError: in this architecture packed examples would see each other.
        """
        if self._packs is None:
            self._packs = "position_ids" in signature(self.model.forward).parameters and self._examples_are_apart()
        if not self._packs:
            raise UserError(
                f"model {self.spec.path}: in this architecture packed examples would see each other; set packing to "
                "false"
            )

    def _examples_are_apart(self) -> bool:
        vocabulary = int(self.model.config.get_text_config().vocab_size)
        first, other, last = (torch.arange(36, device=self.device) * 7 + 1).remainder(vocabulary).reshape(3, 1, 12)
        offsets = torch.arange(12, device=self.device).repeat(2)[None]
        alone = self.model(input_ids=last, use_cache=False).logits
        packed = [
            self.model(**self._packed_inputs(torch.cat([before, last], dim=1), offsets), use_cache=False).logits[:, 12:]
            for before in (first, other)
        ]
        by_neighbour, by_packing = (packed[0] - packed[1]).abs().max(), (packed[0] - alone).abs().max()
        largest = alone.abs().max()
        return bool(by_neighbour <= _NEIGHBOUR_TOLERANCE * largest and by_packing <= _PACKING_TOLERANCE * largest)

    def use_activation_checkpointing(self, wanted: bool) -> None:
        """Recompute activations in the backward pass from now on, or keep them.

        Only the layers that recompute count as training; everything below stays in evaluation mode, so that the
        base's own dropout, which draws from the global stream, is never active.
        """
        if wanted == self._checkpointing:
            return
        layers = [module for module in self.model.modules() if isinstance(module, GradientCheckpointingLayer)]
        if wanted and not layers:
            raise UserError(f"model {self.spec.path}: this architecture has no activation checkpointing")
        for layer in layers:
            layer.gradient_checkpointing = wanted
            layer._gradient_checkpointing_func = _RECOMPUTE
            layer.training = wanted
        self._checkpointing = wanted

    def check_unchanged(self) -> None:
        """Raises BaseChangedError if any weight differs from what was loaded."""
        if self._compute_digest() != self.digest:
            raise BaseChangedError(f"the weights of {self.spec.path} changed in memory")

    def _load(self) -> PreTrainedModel:
        model = load_model(self.spec, self.attention, _quantization(self.spec, self.device), self.device)
        nn.Module.to(model, self.device)
        return model

    def _halves(self) -> Head | None:
        return split_head(self.model, self.device)

    def _compute_digest(self) -> str:
        names = [(name, list(full_shape(weight)), str(weight.dtype)) for name, weight in self._weights]
        return sha256(json.dumps([names, self._bit_sums().tolist()]).encode()).hexdigest()

    def _bit_sums(self) -> torch.Tensor:
        return torch.stack([bit_sums(weight) for _, weight in self._weights])


def _quantization(spec: ModelSpec, device: torch.device) -> BitsAndBytesConfig | None:
    """QLoRA's: 4-bit normal floats whose scales are quantized as well, computed in the base's dtype."""
    if spec.quantization == "none":
        return None
    if device.type != "cuda" or importlib.util.find_spec("bitsandbytes") is None:
        raise UserError("quantization nf4 needs a CUDA device and the bitsandbytes package; set quantization to none")
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, spec.resolved_dtype),
    )


def load_model(
    spec: ModelSpec, attention: str, quantization: BitsAndBytesConfig | None, device: torch.device
) -> PreTrainedModel:
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            spec.path,
            dtype=getattr(torch, spec.resolved_dtype),
            attn_implementation=attention,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            quantization_config=quantization,
            device_map=None if quantization is None else {"": device},
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(f"model {spec.path} cannot be loaded: {_first_line(error)}") from error
    return model


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def linear_modules(model: PreTrainedModel) -> tuple[str, ...]:
    """Full names of the linear layers that an adapter may target: all but the output head."""
    head = _output_head(model)
    return tuple(name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head)


def _output_head(model: PreTrainedModel) -> nn.Module | None:
    head: nn.Module | None = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return head


def _shape(model: PreTrainedModel) -> ModelShape:
    config = model.config.get_text_config()
    # By the features: packed (4 bit) and partitioned (ZeRO-3) weights hold other numbers of elements.
    sizes = {m: m.in_features * m.out_features for m in model.modules() if isinstance(m, nn.Linear)}
    head = _output_head(model)
    heads = int(config.num_attention_heads)
    head_size = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return ModelShape(
        matmul_parameters=sum(sizes.values()),
        head_parameters=sizes[head] if isinstance(head, nn.Linear) else 0,
        layers=int(config.num_hidden_layers),
        attention_width=heads * head_size,
    )


def split_head(model: PreTrainedModel, device: torch.device) -> Head | None:
    """The two halves of the model if together they give its logits, else None (scaled or capped logits)."""
    decoder, head = model.get_decoder(), _output_head(model)  # type: ignore[no-untyped-call]
    if decoder is None or decoder is model or head is None:
        return None
    ids = torch.arange(8, device=device).reshape(2, 4) % int(model.config.get_text_config().vocab_size)
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits
        halves = head(decoder(input_ids=ids, use_cache=False).last_hidden_state)
    return Head(decoder, head) if torch.equal(logits, halves) else None


def _frozen_tensors(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Every weight, and the scales of those that are quantized."""
    for name, weight in model.named_parameters():
        yield name, weight
        state = getattr(weight, "quant_state", None)
        for part, value in {} if state is None else state.as_dict().items():
            if isinstance(value, torch.Tensor):
                yield f"{name}.{part}", value


def full_shape(weight: torch.Tensor) -> torch.Size:
    """Shape of the weight, of the whole one if this process holds a part of it."""
    shape: torch.Size = getattr(weight, "ds_shape", weight.shape)
    return shape


@torch.no_grad()
def bit_sums(weight: torch.Tensor) -> torch.Tensor:
    """[2] int64 on the CPU: wrapping sum and exclusive-or of the elements read as integers.

    Both add up over the parts of a weight, so that however it is cut, the whole has the same.
    """
    if not weight.numel():
        return torch.zeros(2, dtype=torch.int64)
    bits = weight.detach().contiguous().flatten().view(_INTEGER_OF_SIZE[weight.element_size()])
    return torch.stack([bits.sum(dtype=torch.int64), torch.hash_tensor(bits).view(torch.int64)]).cpu()
