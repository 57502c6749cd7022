"""Looks at the folder of a base model: every reason why it could not be trained on, and what it is instead of one."""

import json
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hpo_service.core.errors import InvalidSpec, Problem

_POINTER = "/model/path"
_MAX_CONFIG_BYTES = 1_048_576
_LENGTH_BYTES = 8
_CONFIG, _TOKENIZER_CONFIG, _ADAPTER = "config.json", "tokenizer_config.json", "adapter_config.json"
#: files that hold the vocabulary of some kind of tokenizer
_VOCABULARIES = ("tokenizer.json", "*.model", "vocab*", "merges.txt", "*.tiktoken", "tekken.json")
#: tokenizers that have no vocabulary: they read bytes
_OF_BYTES = ("ByT5Tokenizer", "PerceiverTokenizer", "CanineTokenizer")
_WANTED = "name the folder of a model in Hugging Face layout: config.json, *.safetensors and the tokenizer"
_FILES = {
    ".gguf": "is a GGUF file, which is made for inference",
    ".safetensors": "is one file of weights",
    ".bin": "is one file of weights, and a pickle",
    ".pt": "is one file of weights, and a pickle",
    ".pth": "is one file of weights, and a pickle",
}


def check_model(path: Path, written: str, roots: Sequence[Path]) -> None:
    """Raise InvalidSpec with every problem of the model at `path`, which the user called `written`."""
    problems = [Problem(pointer=_POINTER, detail=detail) for detail in _problems(path, repr(written[:200]), roots)]
    if problems:
        raise InvalidSpec(problems[0].detail, problems=problems)


def _problems(path: Path, written: str, roots: Sequence[Path]) -> Iterator[str]:
    if not path.is_dir():
        yield f"{written} {_FILES.get(path.suffix.lower(), 'is not a folder')}; {_WANTED}."
        return
    strays = [said for file in sorted(path.iterdir()) if (said := _stray(file, written, roots)) is not None]
    if strays:
        yield from strays[:5]
        return
    if not _is_file(path / _CONFIG):
        yield _instead(path, written)
        return
    yield from _about_configs(path, written)
    yield from _about_weights(path, written)
    if not _has_tokenizer(path):
        yield (
            f"{written} has no tokenizer (tokenizer.json, tokenizer.model or another vocabulary); copy it there from "
            "the model that this one was made from, with tokenizer_config.json."
        )


def _stray(file: Path, written: str, roots: Sequence[Path]) -> str | None:
    """Whether a file is none below a root: libraries read more of a model than we look at."""
    try:
        place = file.resolve()
    except (OSError, RuntimeError, ValueError):
        return f"{file.name!r} in {written} is a link that leads nowhere."
    if not any(place.is_relative_to(root) for root in roots):
        return f"{file.name!r} in {written} is a link out of the folders that may be used."
    if file.exists() and not (_is_file(file) or file.is_dir()):
        return f"{file.name!r} in {written} is neither a file nor a folder."
    return None


def _instead(path: Path, written: str) -> str:
    """What a folder without a configuration is."""
    if _is_file(path / _ADAPTER):
        base = _read(path / _ADAPTER).get("base_model_name_or_path")
        of = f" of {base[:200]!r}" if isinstance(base, str) and base else ""
        return (
            f"{written} is a PEFT adapter{of}, not a model; name the folder of the base model, or of a model that the "
            "adapter was merged into."
        )
    if any(path.glob("*.gguf")):
        return f"{written} holds GGUF files, which are made for inference; {_WANTED}."
    if (path / "params.json").exists():
        return f"{written} is in the layout of its maker (params.json, no config.json); {_WANTED}."
    inside = sorted(child.name for child in path.iterdir() if (child / _CONFIG).is_file())
    inside += [f"snapshots/{child.name}" for child in path.glob("snapshots/*") if (child / _CONFIG).is_file()]
    if inside:
        return f"{written} has no config.json, but {inside[0]!r} below it has; name that folder."
    return f"{written} has no config.json; {_WANTED}."


def _about_configs(path: Path, written: str) -> Iterator[str]:
    for name in (_CONFIG, _TOKENIZER_CONFIG):
        if not (path / name).exists():
            continue
        try:
            config = _object(path / name)
        except (ValueError, RecursionError) as error:
            yield f"{name} of {written} is not JSON that can be read: {error}."
            continue
        if config is None:
            yield f"{name} of {written} is not a JSON object."
        elif "auto_map" in config:
            yield f"{name} of {written} has `auto_map`: the model brings code of its own, which is never run."
    if (path / _ADAPTER).exists():
        yield f"{written} holds {_ADAPTER}: it would be loaded with that adapter; name the base model alone."


def _about_weights(path: Path, written: str) -> Iterator[str]:
    weights = sorted(file for file in path.glob("*.safetensors") if _is_file(file))
    if not weights:
        yield f"{written} has no *.safetensors; other weights (pickle) are not read, convert them."
    for file in weights:
        if not _is_safetensors(file):
            yield (
                f"{file.name!r} in {written} is not in the format of safetensors: no header of its length. "
                "It is broken, or another format under this name."
            )
            return
    names = {file.name for file in weights}
    missing = sorted(_named_by_index(path) - names)
    if weights and missing and "model.safetensors" not in names:
        yield (
            f"{written} lacks {missing[0][:200]!r}, which model.safetensors.index.json names ({len(missing)} file(s) "
            "are missing); copy the model again."
        )


def _named_by_index(path: Path) -> set[str]:
    files = _read(path / "model.safetensors.index.json").get("weight_map")
    return {name for name in files.values() if isinstance(name, str)} if isinstance(files, dict) else set()


def _is_safetensors(file: Path) -> bool:
    """Whether the file begins with a header that fits into it: what is merely called so may be a pickle."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(_LENGTH_BYTES), "little")
        begins = opened.read(1) == b"{"
    return begins and length <= file.stat().st_size - _LENGTH_BYTES


def _has_tokenizer(path: Path) -> bool:
    if any(_is_file(file) for pattern in _VOCABULARIES for file in path.glob(pattern)):
        return True
    return _read(path / _TOKENIZER_CONFIG).get("tokenizer_class") in _OF_BYTES


def _object(path: Path, most_bytes: int = _MAX_CONFIG_BYTES) -> dict[str, Any] | None:
    """The object in a JSON file, None if it holds something else. Raises ValueError or RecursionError."""
    if path.stat().st_size > most_bytes:
        raise ValueError("it is too large")
    value = json.loads(path.read_text("utf-8"))
    return value if isinstance(value, dict) else None


def _read(path: Path) -> dict[str, Any]:
    """The object in a JSON file that only hints are taken from; empty if there is none."""
    try:
        return (_object(path, 64 * _MAX_CONFIG_BYTES) if _is_file(path) else None) or {}
    except (OSError, ValueError, RecursionError):
        return {}


def _is_file(path: Path) -> bool:
    return path.exists() and stat.S_ISREG(path.stat().st_mode)
