"""Model folders on disk: what is read of them, and which are refused before a library looks at them. No torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.common.errors import UserError

CONFIG = "config.json"
#: the longest row, as most architectures call it, and as the GPT-2 family does
_POSITIONS = ("max_position_embeddings", "n_positions")
#: ways in which rotary positions are stretched by a factor
_STRETCHING = frozenset({"linear", "dynamic", "yarn"})
_MOST_STRETCHED = 1024
_WITH_CODE = (CONFIG, "tokenizer_config.json")
#: where it lies in a model folder, transformers loads this adapter, and its base instead of the folder's weights
_ADAPTER = "adapter_config.json"
#: what decides how a model folder's tokenizer works
TOKENIZER_FILES = (
    "config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "chat_template*",
    "additional_chat_templates/*",
)


def check_model_files(folder: Path) -> dict[str, Any]:
    """The configuration of a model that runs no code of its own and is a base model alone.

    Raises:
        UserError: no such folder or configuration, no safetensors weights, a model with code of its own or an adapter.
    """
    if not folder.is_dir():
        raise UserError(f"model {folder} is not a folder on this machine")
    if not (folder / CONFIG).is_file():
        raise UserError(f"model {folder} has no {CONFIG}")
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"model {folder} has no safetensors weights; other formats can run code and are not loaded")
    for name in _WITH_CODE:
        if (folder / name).is_file() and "auto_map" in read_json(folder / name):
            raise UserError(f"model {folder} wants to run its own code ({name} has auto_map), which is refused")
    if (folder / _ADAPTER).exists():
        raise UserError(
            f"model {folder} holds {_ADAPTER}, so that it would be loaded with that adapter; merge the adapter into "
            "its base, or move it out of the folder"
        )
    return read_json(folder / CONFIG)


def max_positions(folder: Path) -> int | None:
    """Longest row that a model was built for, by its configuration; None if that does not say. Raises UserError."""
    return positions_of(read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {})


def positions_of(config: Mapping[str, Any]) -> int | None:
    """The same of a configuration. Rotary positions that are stretched reach further than it says."""
    written = next((config[name] for name in _POSITIONS if name in config), None)
    if not isinstance(written, int) or written <= 0:
        return None
    rope = config.get("rope_scaling") or config.get("rope_parameters")
    return max([written, *(_stretched(part, config, written) for part in _parts(rope))])


def _parts(rope: object) -> list[Mapping[str, Any]]:
    """One setting, or one a kind of layer."""
    if not isinstance(rope, Mapping):
        return []
    return [rope, *(part for part in rope.values() if isinstance(part, Mapping))]


def _stretched(rope: Mapping[str, Any], config: Mapping[str, Any], written: int) -> int:
    """What `written` positions become; some configurations give the number from before, some the one after."""
    kind, factor = rope.get("rope_type") or rope.get("type"), rope.get("factor")
    if kind not in _STRETCHING or isinstance(factor, bool) or not isinstance(factor, int | float):
        return written
    before = rope.get("original_max_position_embeddings") or config.get("original_max_position_embeddings") or written
    return int(before * factor) if isinstance(before, int) and 1 <= factor <= _MOST_STRETCHED else written


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object")
    return value
