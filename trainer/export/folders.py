"""Model folders on disk: what may be read, what travels with the weights, digests, delivery whole or not at all."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainer.common.errors import UserError
from trainer.common.model_files import TOKENIZER_FILES, check_model_files, read_json

SINGLE_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
#: files that belong to a model beside its weights; anything else, code above all, stays where it is
_COMPANIONS = (*TOKENIZER_FILES, "generation_config.json", "LICENSE*", "NOTICE*", "USE_POLICY*")


def check_model_folder(folder: Path) -> dict[str, Any]:
    """The configuration of a model that can be delivered.

    Raises:
        UserError: see `check_model_files`; or there are no weights under a usual name, or they are quantized.
    """
    config = check_model_files(folder)
    if not (folder / SINGLE_FILE).is_file() and not (folder / INDEX).is_file():
        raise UserError(f"model {folder} has neither {SINGLE_FILE} nor {INDEX}")
    if "quantization_config" in config:
        raise UserError(f"model {folder} is quantized already; name the model that it was made from")
    return config


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model, sorted. Raises UserError if one that the index names is missing."""
    if not (folder / INDEX).is_file():
        return [folder / SINGLE_FILE]
    names = read_json(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) and "/" not in name for name in names.values()):
        raise UserError(f"{folder / INDEX} has no weight_map of file names")
    files = sorted({folder / name for name in names.values()})
    for file in files:
        if not file.is_file():
            raise UserError(f"{file}, which the index names, is missing")
    return files


def companion_files(folder: Path) -> list[Path]:
    """Configuration, tokenizer, chat templates and licences of a model, sorted."""
    return sorted({path for pattern in _COMPANIONS for path in folder.glob(pattern) if path.is_file()})


def copy_companions(source: Path, target: Path) -> None:
    """Copy the companion files byte for byte; files that are there already stay as they are."""
    for path in companion_files(source):
        copy = target / path.relative_to(source)
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def model_digest(folder: Path) -> str:
    """SHA-256 over names and contents of a model's weights and companions."""
    return files_digest(folder, [*weight_files(folder), *companion_files(folder)])


def files_digest(folder: Path, files: list[Path]) -> str:
    """SHA-256 over names (below `folder`) and contents of `files`, in the order of their names."""
    total = hashlib.sha256()
    for file in sorted(files):
        total.update(f"{file_digest(file)}  {file.relative_to(folder).as_posix()}\n".encode())
    return total.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_bytes(folder: Path) -> int:
    """Bytes of all files below `folder`."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def check_output(output: Path) -> None:
    """Raises UserError unless `output` is free: nothing, or an empty folder."""
    if output.is_dir() and not any(output.iterdir()):
        return
    if output.exists() or output.is_symlink():
        raise UserError(f"{output} exists already; name another folder or delete it")


@contextmanager
def delivery(output: Path) -> Iterator[Path]:
    """A folder beside `output` to build in, which takes its place when the block ends well, else is deleted.

    Raises:
        UserError: `output` is not free.
    """
    check_output(output)
    output = output.absolute()
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{output.name}.partial-", dir=output.parent))
    try:
        yield partial
        for path in partial.rglob("*"):
            _settle(path)
        partial.chmod(0o755)
        check_output(output)
        os.rename(partial, output)
        _sync(output.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _settle(path: Path) -> None:
    path.chmod(0o755 if path.is_dir() else 0o644)
    _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
