"""Looks at the files that a study names before anything is promised: where they lie, what they hold."""

import json
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from hpo_service.core.errors import InvalidSpec, Problem
from hpo_service.services.data.profile import read_traits
from hpo_service.spec import StudySpec, Traits, expand
from trainer.data.rows import RowError, count_rows_quickly, data_files, example_counts
from trainer.spec import DataFormat

_MAX_CONFIG_BYTES = 1_048_576
_LENGTH_BYTES = 8
_Check = Callable[[Path, str, str], int]
_CONFIGS = ("config.json", "tokenizer_config.json")


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Absolute paths, and the rows that a trial sees after split and limits."""

    model_path: str
    train: str
    eval: str | None
    test: str | None
    train_rows: int
    eval_rows: int
    traits: Traits


def inspect(spec: StudySpec, roots: Sequence[Path]) -> Inputs:
    """Find and check model and data below `roots`.

    Raises:
        InvalidSpec: with a problem for each of model and data that cannot be used.
    """
    data = expand(spec).data
    problems: list[Problem] = []
    model = _checked(problems, partial(_model, roots=roots), spec.model.path, roots, "/model/path")
    rows = partial(_rows, data_format=data.format, roots=roots)
    train = _checked(problems, rows, data.train, roots, "/data/train")
    evaluation = None if data.eval is None else _checked(problems, rows, data.eval, roots, "/data/eval")
    test = None if data.test is None else _checked(problems, rows, data.test, roots, "/data/test")
    if problems or model is None or train is None:
        raise InvalidSpec(problems[0].detail, problems=problems)
    train_rows, eval_rows = example_counts(data, train[1], None if evaluation is None else evaluation[1])
    if eval_rows == 0:
        raise _invalid("/data/train", "data.train holds one row; two are needed to hold one out, or name data.eval.")
    return Inputs(
        model_path=str(model[0]),
        train=str(train[0]),
        eval=None if evaluation is None else str(evaluation[0]),
        test=None if test is None else str(test[0]),
        train_rows=train_rows,
        eval_rows=eval_rows,
        traits=read_traits(model[0], train[0], train[1]),
    )


def locate(written: str, roots: Sequence[Path], pointer: str) -> Path:
    """The file or folder that was meant, symbolic links followed. Raises InvalidSpec unless it lies below a root."""
    if any(ord(character) < 32 or ord(character) == 127 for character in written):
        raise _invalid(pointer, "the path holds a control character.")
    inside = [path for root in roots if (path := _resolved(root / written)) is not None and _is_below(path, roots)]
    if not inside:
        listed = ", ".join(map(str, roots))
        raise _invalid(
            pointer,
            f"{written[:200]!r} lies outside the folders that may be used: {listed}. Move it there or set HPO_ROOTS.",
        )
    for path in inside:
        if path.exists():
            return path
    raise _invalid(pointer, f"{written[:200]!r} does not exist below {', '.join(map(str, roots))}.")


def _checked(
    problems: list[Problem], check: _Check, written: str, roots: Sequence[Path], pointer: str
) -> tuple[Path, int] | None:
    try:
        path = locate(written, roots, pointer)
        return path, check(path, written, pointer)
    except InvalidSpec as error:
        problems.extend(error.problems)
    except OSError as error:
        problems.append(Problem(pointer=pointer, detail=f"{written[:200]!r} cannot be read: {error.strerror}."))
    return None


def _model(path: Path, written: str, pointer: str, *, roots: Sequence[Path]) -> int:
    if not path.is_dir():
        raise _invalid(pointer, f"{written!r} is not a folder; name the folder of a model in Hugging Face layout.")
    for file in path.iterdir():
        _require_plain(file, written, pointer, roots)
    if not _is_file(path / "config.json"):
        raise _invalid(pointer, f"{written!r} has no config.json; name the folder of a model in Hugging Face layout.")
    for name in _CONFIGS:
        if (path / name).exists():
            _require_no_code(path / name, written, pointer)
    if (path / "adapter_config.json").exists():
        raise _invalid(
            pointer,
            f"{written!r} holds adapter_config.json: it would be loaded with that adapter; name the base model alone.",
        )
    weights = [file for file in path.glob("*.safetensors") if _is_file(file)]
    if not weights:
        raise _invalid(pointer, f"{written!r} has no *.safetensors; other weights (pickle) are not read, convert them.")
    for file in weights:
        _require_safetensors(file, written, pointer)
    return len(weights)


def _require_plain(file: Path, written: str, pointer: str, roots: Sequence[Path]) -> None:
    """A file or folder below a root: libraries read more of a model than we look at."""
    place = _resolved(file)
    if place is None:
        raise _invalid(pointer, f"{file.name!r} in {written!r} is a link that leads nowhere.")
    if not _is_below(place, roots):
        raise _invalid(pointer, f"{file.name!r} in {written!r} is a link out of the folders that may be used.")
    if file.exists() and not (_is_file(file) or file.is_dir()):
        raise _invalid(pointer, f"{file.name!r} in {written!r} is neither a file nor a folder.")


def _require_safetensors(file: Path, written: str, pointer: str) -> None:
    """Whether the file begins with a header that fits into it: what is merely called so may be a pickle."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(_LENGTH_BYTES), "little")
        begins = opened.read(1) == b"{"
    if not begins or length > file.stat().st_size - _LENGTH_BYTES:
        raise _invalid(
            pointer,
            f"{file.name!r} in {written!r} is not in the format of safetensors: no header of its length. "
            "It is broken, or another format under this name.",
        )


def _require_no_code(path: Path, written: str, pointer: str) -> None:
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise ValueError("it is too large")
        config = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _invalid(pointer, f"{path.name} of {written!r} is not JSON that can be read: {error}.") from error
    if not isinstance(config, dict):
        raise _invalid(pointer, f"{path.name} of {written!r} is not a JSON object.")
    if "auto_map" in config:
        raise _invalid(
            pointer, f"{path.name} of {written!r} has `auto_map`: the model brings code of its own, which is never run."
        )


def _rows(path: Path, written: str, pointer: str, *, data_format: DataFormat, roots: Sequence[Path]) -> int:
    if not path.is_dir() and not _is_file(path):
        raise _invalid(pointer, f"{written!r} is not a file; name a JSONL or Parquet file, or a folder of them.")
    try:
        files = data_files(path)
        for file in files:
            if not _is_below(file.resolve(), roots):
                raise _invalid(pointer, f"{file.name!r} in {written!r} is a link out of the folders that may be used.")
        return _count(str(path), data_format, tuple(_state(file) for file in files))
    except RowError as error:
        where = f"{written!r}" if error.path == str(path) else f"{written!r}, {Path(error.path).name}"
        line = f", line {error.line_number}" if error.line_number else ""
        raise _invalid(pointer, f"{where}{line}: {error.problem}.") from error


def _state(file: Path) -> tuple[str, int, int]:
    status = file.stat()
    return file.name, status.st_size, status.st_mtime_ns


@lru_cache(maxsize=256)
def _count(path: str, data_format: DataFormat, _files: tuple[tuple[str, int, int], ...]) -> int:
    return count_rows_quickly(path, data_format)


def _is_file(path: Path) -> bool:
    return path.exists() and stat.S_ISREG(path.stat().st_mode)


def _is_below(path: Path, roots: Sequence[Path]) -> bool:
    return any(path.is_relative_to(root) for root in roots)


def _resolved(path: Path) -> Path | None:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return None


def _invalid(pointer: str, detail: str) -> InvalidSpec:
    return InvalidSpec(detail, problems=[Problem(pointer=pointer, detail=detail)])
