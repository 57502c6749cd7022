"""Base weights plus adapter, written shard by shard: never more than one shard is in memory."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from trainer.common.errors import UserError
from trainer.export.folders import INDEX, SINGLE_FILE, weight_files
from trainer.export.lora_file import LoraFile, LoraPair

#: safetensors' names of the float types that a weight to merge may have
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64}


@dataclass(frozen=True)
class _Stored:
    """A tensor of the base and the bytes it will take."""

    name: str
    file: Path
    size_bytes: int


def merge_weights(base: Path, lora: LoraFile, target: Path, dtype: torch.dtype | None, shard_bytes: int) -> None:
    """Write the base's tensors with the adapter merged in, in the base's order, with an index if there are several.

    Sums are made in float32 and rounded once to `dtype` (None: each tensor's own); what the adapter does not touch
    keeps its bits.

    Raises:
        UserError: the base is damaged, or the adapter is of another model.
    """
    by_weight = {f"{module}.weight": pair for module, pair in lora.pairs.items()}
    try:
        stored = list(_stored(base, dtype))
        if missing := sorted(set(by_weight) - {tensor.name for tensor in stored}):
            raise UserError(
                f"adapter {lora.folder} has a part for {missing[0]} (and {len(missing) - 1} more), which {base} does "
                "not hold under that name: it is of another model, or the weight is tied or fused"
            )
        shards = _shards(stored, shard_bytes)
        for number, shard in enumerate(shards, start=1):
            _write_shard(shard, by_weight, target / _shard_name(number, len(shards)), dtype, lora.folder)
    except (SafetensorError, OSError) as error:
        raise UserError(f"weights of {base} cannot be merged: {error}") from error
    if len(shards) > 1:
        (target / INDEX).write_text(_index(shards), encoding="utf-8")


def dtype_names(base: Path) -> set[str]:
    """The float types among a model's weights, as torch names them. Raises UserError."""
    try:
        return {str(_FLOATS[kind]).removeprefix("torch.") for _, _, kind, _ in _headers(base) if kind in _FLOATS}
    except (SafetensorError, OSError) as error:
        raise UserError(f"weights of {base} cannot be read: {error}") from error


def refuse_float64(folder: Path, remedy: str) -> None:
    """Raises UserError, with the remedy, if a model has weights of a type that nothing serves."""
    if "float64" in dtype_names(folder):
        raise UserError(f"model {folder} has float64 weights, which no variant keeps; {remedy}")


def _headers(base: Path) -> Iterator[tuple[str, Path, str, list[int]]]:
    for path in weight_files(base):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                yield name, path, part.get_dtype(), part.get_shape()


def _stored(base: Path, dtype: torch.dtype | None) -> Iterator[_Stored]:
    for name, path, kind, shape in _headers(base):
        if kind in _FLOATS:
            bits = (dtype or _FLOATS[kind]).itemsize * 8
        elif kind in _BITS:
            bits = _BITS[kind]
        else:
            raise UserError(f"{name} in {path} is of type {kind}; only models that are not quantized can be merged")
        yield _Stored(name, path, prod(shape) * bits // 8)


def _shards(stored: list[_Stored], shard_bytes: int) -> list[list[_Stored]]:
    shards: list[list[_Stored]] = [[]]
    filled = 0
    for tensor in stored:
        if shards[-1] and filled + tensor.size_bytes > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += tensor.size_bytes
    return shards


def _shard_name(number: int, count: int) -> str:
    return SINGLE_FILE if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"


def _write_shard(
    shard: list[_Stored], pairs: Mapping[str, LoraPair], path: Path, dtype: torch.dtype | None, adapter: Path
) -> None:
    tensors: dict[str, torch.Tensor] = {}
    with ExitStack() as stack:
        files: dict[Path, Any] = {}
        for stored in shard:
            if stored.file not in files:
                files[stored.file] = stack.enter_context(safe_open(stored.file, framework="pt"))
            weight = files[stored.file].get_tensor(stored.name)
            kept = (dtype or weight.dtype) if weight.is_floating_point() else weight.dtype
            if stored.name in pairs:
                weight = _merged(weight, pairs[stored.name], stored.name, adapter)
            tensors[stored.name] = weight.to(kept).contiguous()
        save_file(tensors, path, metadata={"format": "pt"})


def _merged(weight: torch.Tensor, pair: LoraPair, name: str, adapter: Path) -> torch.Tensor:
    if weight.shape != (pair.b.shape[0], pair.a.shape[1]):
        raise UserError(
            f"adapter {adapter} is of another model: it fits a {name} of {[pair.b.shape[0], pair.a.shape[1]]}, "
            f"the base's is {list(weight.shape)}"
        )
    return pair.merged(weight)


def _index(shards: list[list[_Stored]]) -> str:
    total = sum(tensor.size_bytes for shard in shards for tensor in shard)
    names = {
        tensor.name: _shard_name(number, len(shards))
        for number, shard in enumerate(shards, start=1)
        for tensor in shard
    }
    return json.dumps({"metadata": {"total_size": total}, "weight_map": names}, indent=2) + "\n"
