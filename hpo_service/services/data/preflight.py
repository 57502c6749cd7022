"""Looks at the files that a study names before anything is promised: where they lie, what they hold."""

import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from shlex import quote

from hpo_service.core.errors import InvalidSpec, Problem
from hpo_service.core.problems import Problems
from hpo_service.services.data.model_facts import read_facts
from hpo_service.services.data.model_folder import check_model
from hpo_service.services.data.profile import read_traits
from hpo_service.spec import StudySpec, Traits, expand
from hpo_service.spec.runnable import ModelFacts
from trainer.data.rows import RowError, count_rows_quickly, data_files, example_counts, read_rows
from trainer.spec import DataFormat

#: a name on the Hub, or its address
_HUB_NAME = re.compile(
    r"(?:hf://|https://huggingface\.co/(?:datasets/)?)?(?P<name>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})/?",
    re.A,
)
_Check = Callable[[Path, str, str], int]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Absolute paths, and the rows that a trial sees after split and limits.

    `data_format` is what the first rows are; auto only where the files differ, so that each has to be looked at again.
    """

    model_path: str
    train: str
    eval: str | None
    test: str | None
    train_rows: int
    eval_rows: int
    data_format: DataFormat
    traits: Traits


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was found: `inputs` is None if there is a problem, `model` if it is one of the model's."""

    problems: tuple[Problem, ...] = ()
    model: ModelFacts | None = None
    inputs: Inputs | None = None


def look(spec: StudySpec, roots: Sequence[Path]) -> Look:
    """Find and check model and data below `roots`; what the preset says of them is in `spec`."""
    data = spec.data
    problems = Problems()
    model = _checked(problems, partial(_model, roots=roots), spec.model.path, roots, "/model/path")
    rows = partial(_rows, data_format=data.format, roots=roots)
    train = _checked(problems, rows, data.train, roots, "/data/train")
    evaluation = None if data.eval is None else _checked(problems, rows, data.eval, roots, "/data/eval")
    test = None if data.test is None else _checked(problems, rows, data.test, roots, "/data/test")
    facts = None if model is None else read_facts(model[0])
    if problems.found or model is None or train is None:
        return Look(problems=tuple(problems.found), model=facts)
    train_rows, eval_rows = example_counts(data, train[1], None if evaluation is None else evaluation[1])
    if eval_rows == 0:
        detail = "data.train holds one row; two are needed to hold one out, or name data.eval."
        return Look(problems=(Problem(pointer="/data/train", detail=detail),), model=facts)
    inputs = Inputs(
        model_path=str(model[0]),
        train=str(train[0]),
        eval=None if evaluation is None else str(evaluation[0]),
        test=None if test is None else str(test[0]),
        train_rows=train_rows,
        eval_rows=eval_rows,
        data_format=_format(data.format, [found[0] for found in (train, evaluation, test) if found is not None]),
        traits=read_traits(model[0], train[0], train[1]),
    )
    return Look(model=facts, inputs=inputs)


def inspect(spec: StudySpec, roots: Sequence[Path]) -> Inputs:
    """What `look` finds. Raises InvalidSpec with a problem for each of model and data that cannot be used."""
    found = look(expand(spec), roots)
    if found.inputs is None:
        raise InvalidSpec(found.problems[0].detail, problems=found.problems)
    return found.inputs


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
    hint = _suffix_hint(written, roots) or _download_hint(written, roots[0], pointer)
    raise _invalid(pointer, f"{written[:200]!r} does not exist below {', '.join(map(str, roots))}.{hint}")


def _suffix_hint(written: str, roots: Sequence[Path]) -> str:
    """The longest end of a path that exists below a root; a sentence, with a space before it, if there is one."""
    parts = PurePosixPath(written).parts
    for first in range(1, len(parts)):
        end = "/".join(parts[first:])
        paths = [path for root in roots if (path := _resolved(root / end)) is not None and _is_below(path, roots)]
        if any(path.exists() for path in paths):
            return f" Paths begin below these folders: {end[:200]!r} does exist; write that."
    return ""


def _download_hint(written: str, root: Path, pointer: str) -> str:
    """How something is fetched that may be on the Hugging Face Hub; a sentence, with a space before it."""
    match = _HUB_NAME.fullmatch(written)
    if match is None:
        return ""
    name, kind = match["name"], "" if pointer == "/model/path" else "--repo-type dataset "
    folder = name.rpartition("/")[2]
    return (
        f" If it is a name on the Hugging Face Hub: nothing is downloaded here, a folder is needed. "
        f"Run hf download {name} {kind}--local-dir {quote(str(root / folder))} and write {folder}."
    )


def _checked(
    problems: Problems, check: _Check, written: str, roots: Sequence[Path], pointer: str
) -> tuple[Path, int] | None:
    try:
        path = locate(written, roots, pointer)
        return path, check(path, written, pointer)
    except InvalidSpec as error:
        problems.add(*error.problems)
    except OSError as error:
        problems.add(Problem(pointer=pointer, detail=f"{written[:200]!r} cannot be read: {error.strerror}."))
    return None


def _model(path: Path, written: str, _pointer: str, *, roots: Sequence[Path]) -> int:
    check_model(path, written, roots)
    return 1


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


def _format(data_format: DataFormat, paths: Sequence[Path]) -> DataFormat:
    """The format of all files, whose rows were read before."""
    found = {next(read_rows(path, data_format)).format for path in paths}
    return found.pop() if len(found) == 1 else data_format


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
