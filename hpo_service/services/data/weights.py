"""What the weights of a model folder hold, from the headers of their files: names and shapes, in no time."""

import json
from functools import lru_cache
from pathlib import Path

_MAX_HEADER_BYTES = 16_000_000
_MAX_DIMENSIONS = 16
_MAX_SIDE = 2**50

Shapes = dict[str, tuple[int, ...]]


def read_shapes(model: Path) -> Shapes | None:
    """The shape of every tensor by its name; None if a header cannot be read."""
    files = sorted(file for file in model.glob("*.safetensors") if file.is_file())
    shapes: Shapes = {}
    for file in files:
        status = file.stat()
        found = _header(str(file), status.st_size, status.st_mtime_ns)
        if found is None:
            return None
        shapes |= found
    return shapes


@lru_cache(maxsize=512)
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
