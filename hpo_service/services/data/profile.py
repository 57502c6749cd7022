"""Reads what a model and its data are like from files that take no time to read."""

import json
import re
from math import prod
from pathlib import Path
from typing import Any

from hpo_service.services.data.weights import read_shapes
from hpo_service.spec import Traits
from trainer.data.rows import data_files

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
    """How many numbers the weights hold; None if a header cannot be read."""
    shapes = read_shapes(model)
    total = sum(map(prod, shapes.values())) if shapes else 0
    return total if 0 < total <= _MAX_PARAMETERS else None
