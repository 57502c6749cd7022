"""What a data check depends on, as one digest: the same fingerprint, the same report."""

import json
from hashlib import sha256
from pathlib import Path

from hpo_service.core.errors import InvalidSpec, Problem
from trainer.data.rows import RowError, data_files
from trainer.spec import CheckData, QualityReport

_WEIGHTS = ".safetensors"


def check_fingerprint(task: CheckData) -> str:
    """SHA-256 over path, size and time of change of every shard and of the model's files beside its weights (tokenizer,
    chat template), the thresholds and the report's version. Nothing is read, so it takes as long as listing folders.

    Raises:
        InvalidSpec: a file has vanished since it was checked.
    """
    facts = {
        "task": task.model_dump(mode="json"),
        "report": QualityReport.model_fields["version"].default,
        "train": _shards(task.data.train, "/data/train"),
        "eval": None if task.data.eval is None else _shards(task.data.eval, "/data/eval"),
        "test": None if task.data.test is None else _shards(task.data.test, "/data/test"),
        "model": _model_files(Path(task.model)),
    }
    return sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _shards(path: str, pointer: str) -> list[tuple[str, int, int]]:
    try:
        return [_stat(file) for file in data_files(path)]
    except (RowError, OSError) as error:
        raise _vanished(path, pointer, error) from error


def _model_files(folder: Path) -> list[tuple[str, int, int]]:
    try:
        return [_stat(file) for file in sorted(folder.iterdir()) if file.is_file() and file.suffix != _WEIGHTS]
    except OSError as error:
        raise _vanished(str(folder), "/model/path", error) from error


def _stat(file: Path) -> tuple[str, int, int]:
    status = file.stat()
    return str(file), status.st_size, status.st_mtime_ns


def _vanished(path: str, pointer: str, error: Exception) -> InvalidSpec:
    detail = f"{path!r} cannot be looked at any more: {error}"
    return InvalidSpec(detail, problems=[Problem(pointer=pointer, detail=detail)])
