"""The frozen base model: loading it from a local folder, its digest, and the loss of a batch."""

import importlib.util
import json
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer

from trainer.accounting import ModelShape
from trainer.errors import BaseChangedError, UserError
from trainer.spec import ModelSpec
from trainer.tokens import Batch

_RECOMPUTE: Any = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
_INTEGER_OF_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class _Head:
    """A model that is exactly `head(decoder(ids))`, so that logits can be computed where they are needed only."""

    decoder: nn.Module
    head: nn.Module


class BaseModel:
    """A base model on its device, never trained and never written to.

    Attributes:
        attention: the implementation that was chosen.
        linear_modules: full names of the linear layers that an adapter may target (not the output head).
        digest: identity of the weights: names, shapes, dtypes and exact integer sums of their bits.
    """

    def __init__(self, spec: ModelSpec, device: torch.device) -> None:
        """Load `spec.path`. Raises UserError if it is no loadable model folder."""
        _check_folder(spec.path)
        self.spec = spec
        self.device = device
        self.attention = choose_attention(spec, device)
        self.model = _load_model(spec, self.attention)
        nn.Module.to(self.model, device)
        self.tokenizer = _load_tokenizer(spec.path)
        self.model.requires_grad_(False)
        self.model.eval()  # type: ignore[no-untyped-call]
        self.linear_modules = _linear_modules(self.model)
        self.shape = _shape(self.model)
        self._weights = list(self.model.named_parameters())
        self.digest = self._compute_digest()
        self._split = _split_head(self.model, device)
        self._checkpointing = False

    @property
    def max_positions(self) -> int | None:
        """Longest row that the model was built for, None if it does not say."""
        positions = getattr(self.model.config, "max_position_embeddings", None)
        return positions if isinstance(positions, int) and positions > 0 else None

    def nll(self, batch: Batch) -> torch.Tensor:
        """Negative log-likelihood of every response token of the batch, [response_tokens] float32.

        Rows are padded on the right and attention is causal, so no mask is needed: padding cannot reach a token.
        """
        if self._split is None:
            logits = self.model(input_ids=batch.input_ids, use_cache=False).logits
            picked = logits.flatten(0, 1).index_select(0, batch.positions)
        else:
            hidden = self._split.decoder(input_ids=batch.input_ids, use_cache=False).last_hidden_state
            picked = self._split.head(hidden.flatten(0, 1).index_select(0, batch.positions))
        return F.cross_entropy(picked.float(), batch.targets, reduction="none")

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

    @torch.no_grad()
    def _compute_digest(self) -> str:
        sums = torch.stack([_bit_sums(weight) for _, weight in self._weights]).tolist()
        names = [(name, list(weight.shape), str(weight.dtype)) for name, weight in self._weights]
        return sha256(json.dumps([names, sums]).encode()).hexdigest()


def choose_attention(spec: ModelSpec, device: torch.device) -> str:
    """The attention implementation for `spec` on `device`. Raises UserError if the one asked for cannot run."""
    flash_runs = device.type == "cuda" and importlib.util.find_spec("flash_attn") is not None
    if spec.attention == "auto":
        return "flash_attention_2" if flash_runs and spec.dtype == "bfloat16" else "sdpa"
    if spec.attention == "flash_attention_2" and not (flash_runs and spec.dtype == "bfloat16"):
        raise UserError("flash_attention_2 needs a CUDA device, bfloat16 and the flash-attn package; use auto")
    return spec.attention


def _check_folder(path: str) -> None:
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"model {path} is not a folder on this machine")
    if not (folder / "config.json").is_file():
        raise UserError(f"model {path} has no config.json")
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"model {path} has no safetensors weights; other formats can run code and are not loaded")
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).is_file() and "auto_map" in _read_json(folder / name):
            raise UserError(f"model {path} wants to run its own code ({name} has auto_map), which is refused")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"model file {path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"model file {path} holds no JSON object")
    return value


def _load_model(spec: ModelSpec, attention: str) -> PreTrainedModel:
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            spec.path,
            dtype=getattr(torch, spec.dtype),
            attn_implementation=attention,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(f"model {spec.path} cannot be loaded: {_first_line(error)}") from error
    return model


def _load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"the tokenizer of {path} cannot be loaded: {_first_line(error)}") from error
    return tokenizer


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _linear_modules(model: PreTrainedModel) -> tuple[str, ...]:
    head = _output_head(model)
    return tuple(name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head)


def _output_head(model: PreTrainedModel) -> nn.Module | None:
    head: nn.Module | None = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return head


def _shape(model: PreTrainedModel) -> ModelShape:
    config = model.config.get_text_config()
    matmul = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
    heads = int(config.num_attention_heads)
    head_size = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return ModelShape(matmul, int(config.num_hidden_layers), heads * head_size)


def _split_head(model: PreTrainedModel, device: torch.device) -> _Head | None:
    """The two halves of the model if together they give its logits, else None (scaled or capped logits)."""
    decoder, head = model.get_decoder(), _output_head(model)  # type: ignore[no-untyped-call]
    if decoder is None or decoder is model or head is None:
        return None
    ids = torch.arange(8, device=device).reshape(2, 4) % int(model.config.get_text_config().vocab_size)
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits
        halves = head(decoder(input_ids=ids, use_cache=False).last_hidden_state)
    return _Head(decoder, head) if torch.equal(logits, halves) else None


def _bit_sums(weight: torch.Tensor) -> torch.Tensor:
    """[2] int64: wrapping sum and exclusive-or of the weight's elements read as integers."""
    bits = weight.detach().contiguous().flatten().view(_INTEGER_OF_SIZE[weight.element_size()])
    return torch.stack([bits.sum(dtype=torch.int64), torch.hash_tensor(bits).view(torch.int64)]).cpu()
