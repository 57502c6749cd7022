"""What the weights of a model folder hold, from the headers of their files: names and shapes, in no time."""

import json
from functools import lru_cache
from pathlib import Path

_MAX_HEADER_BYTES = 16_000_000
_MAX_INDEX_BYTES = 64_000_000
_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_MAX_DIMENSIONS = 16
_MAX_SIDE = 2**50

Shapes = dict[str, tuple[int, ...]]


def read_shapes(model: Path) -> Shapes | None:
    """The shape of every tensor by its name; None if a header cannot be read."""
    shapes: Shapes = {}
    for file in _loaded(model):
        status = file.stat()
        found = _header(str(file), status.st_size, status.st_mtime_ns)
        if found is None:
            return None
        shapes |= found
    return shapes


def _loaded(model: Path) -> list[Path]:
    """The files that a model is loaded from: others may lie beside them, such as the same weights as their maker names
    them.
    """
    files = {file.name: file for file in sorted(model.glob("*.safetensors")) if file.is_file()}
    if _WHOLE in files:
        return [files[_WHOLE]]
    try:
        if (model / _INDEX).stat().st_size > _MAX_INDEX_BYTES:
            return list(files.values())
        named = set(json.loads((model / _INDEX).read_text("utf-8"))["weight_map"].values())
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return list(files.values())
    return [file for name, file in files.items() if name in named]


@lru_cache(maxsize=64)
def _header(file: str, _size_bytes: int, _changed_ns: int) -> Shapes | None:
    with Path(file).open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if not 0 < length <= _MAX_HEADER_BYTES:
            return None
        try:
            header = json.loads(opened.read(length))
            return {name: _shape(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None


def _shape(shape: list[int]) -> tuple[int, ...]:
    if len(shape) > _MAX_DIMENSIONS or not all(isinstance(side, int) and 0 <= side <= _MAX_SIDE for side in shape):
        raise ValueError("no shape")
    return tuple(shape)
