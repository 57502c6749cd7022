"""Reads what a model and its data are like from files that take no time to read."""

import json
from math import prod
from pathlib import Path

from hpo_service.spec import Traits
from trainer.rows import data_files

_MAX_HEADER_BYTES = 100_000_000


def read_traits(model: Path, train: Path, rows: int) -> Traits:
    """Of a model folder and training rows that were checked."""
    config = json.loads((model / "config.json").read_text("utf-8"))
    named = config.get("architectures") or [config.get("model_type", "")]
    size = sum(file.stat().st_size for file in data_files(train))
    return Traits(
        architecture=str(named[0])[:256], model_parameters=_parameters(model), row_bytes=round(size / max(rows, 1), 3)
    )


def _parameters(model: Path) -> int | None:
    """How many numbers the weights hold, from the headers of their files; None if one cannot be read."""
    counts = [_numbers_in(file) for file in sorted(model.glob("*.safetensors"))]
    return None if None in counts or not counts else sum(count for count in counts if count is not None)


def _numbers_in(file: Path) -> int | None:
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if not 0 < length <= _MAX_HEADER_BYTES:
            return None
        try:
            header = json.loads(opened.read(length))
            return sum(int(prod(tensor["shape"])) for name, tensor in header.items() if name != "__metadata__")
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
