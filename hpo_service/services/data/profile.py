"""Reads what a model and its data are like from files that take no time to read."""

import json
import re
from math import prod
from pathlib import Path
from typing import Any

from hpo_service.spec import Traits
from trainer.data.rows import data_files

_MAX_HEADER_BYTES = 16_000_000
_MAX_DIMENSIONS = 16
_MAX_PARAMETERS = 2**50
_ARCHITECTURE = re.compile(r"[A-Za-z0-9_.-]{1,256}")


def read_traits(model: Path, train: Path, rows: int) -> Traits:
    """Of a model folder and training rows that were checked."""
    config = json.loads((model / "config.json").read_text("utf-8"))
    size = sum(file.stat().st_size for file in data_files(train))
    return Traits(
        architecture=_architecture(config), model_parameters=_parameters(model), row_bytes=round(size / max(rows, 1), 3)
    )


def _architecture(config: dict[str, Any]) -> str:
    """The name of a class; "" where the configuration says none, or something else."""
    named = config.get("architectures")
    first = named[0] if isinstance(named, list) and named else config.get("model_type")
    return first if isinstance(first, str) and _ARCHITECTURE.fullmatch(first) else ""


def _parameters(model: Path) -> int | None:
    """How many numbers the weights hold, from the headers of their files; None if one cannot be read."""
    counts = [_numbers_in(file) for file in sorted(model.glob("*.safetensors")) if file.is_file()]
    total = sum(count for count in counts if count is not None)
    return total if None not in counts and 0 < total <= _MAX_PARAMETERS else None


def _numbers_in(file: Path) -> int | None:
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if not 0 < length <= _MAX_HEADER_BYTES:
            return None
        try:
            header = json.loads(opened.read(length))
            return sum(_size(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None


def _size(shape: list[int]) -> int:
    if len(shape) > _MAX_DIMENSIONS or not all(
        isinstance(side, int) and 0 <= side <= _MAX_PARAMETERS for side in shape
    ):
        raise ValueError("no shape")
    return prod(shape)
