"""`python -m trainer check-data`: from options to a report and an exit status."""

import argparse
import os
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from trainer.common.errors import TrainerError, UserError
from trainer.common.written_files import first_problem, found_path
from trainer.quality import render
from trainer.quality.gate import check_data
from trainer.spec import CheckData, DataSpec, Outcome, QualityReport, QualityThresholds
from trainer.worker.job_input import first_line, wait_for_the_end
from trainer.worker.jobs import REFUSED_TASK

#: COULD_NOT_RUN is what Python itself ends with after an error that nothing caught: it says nothing about the data.
PASSED, COULD_NOT_RUN, WRONG_USAGE, FAILED, REFUSED = 0, 1, 2, 3, 4

#: options that are fields of a DataSpec
_DATA_OPTIONS = ("eval", "test", "format", "max_length", "eval_fraction")


def main(options: argparse.Namespace) -> int:
    """Check, print, return the exit status."""
    try:
        options.scratch.mkdir(parents=True, exist_ok=True)
        if options.task is not None:
            return _run_task(options.task, options.processes, options.scratch)
        data, model, thresholds = _asked(options)
        report = check_data(data, model, thresholds, options.processes, options.scratch)
        _write(report, options)
    except _UsageError as error:
        return _said(error, WRONG_USAGE)
    except TrainerError as error:
        return _said(error, COULD_NOT_RUN if error.outcome is Outcome.INFRA_ERROR else REFUSED)
    except OSError as error:
        return _said(f"{error.filename or 'a temporary file'}: {error.strerror or error}", COULD_NOT_RUN)
    return _status(report)


class _UsageError(Exception):
    """Options that contradict each other or that no data can have."""


def _said(error: Exception | str, status: int) -> int:
    sys.stderr.write(f"error: {error}\n")
    return status


def _status(report: QualityReport) -> int:
    return FAILED if report.verdict == "fail" else PASSED


def _run_task(source: str, processes: int, scratch: Path) -> int:
    """What the service asks for: the report is the only line of stdout, and its reader's death is ours."""
    if source == "-":
        text = first_line(sys.stdin.fileno())
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    else:
        text = Path(source).read_bytes()
    try:
        task = CheckData.model_validate_json(text)
    except ValidationError as error:
        raise _UsageError(f"the task is no CheckData: {first_problem(error)}") from error
    if task.target_modules:
        # torch takes seconds to import, and most checks can do without.
        checking = import_module("trainer.model.architecture_check")
        try:
            checking.require_targets(task.model, task.target_modules)
        except UserError as error:
            return _said(error, REFUSED_TASK)
    report = check_data(task.data, task.model, task.thresholds, processes, scratch)
    sys.stderr.write(render.terminal(report))
    sys.stdout.write(report.model_dump_json() + "\n")
    return _status(report)


def _end_with_stdin() -> None:
    wait_for_the_end(sys.stdin.fileno())
    os._exit(COULD_NOT_RUN)


def _asked(options: argparse.Namespace) -> tuple[DataSpec, str | None, QualityThresholds]:
    """Data, model and thresholds of FILE or --spec, each option on top."""
    if (options.file is None) == (options.spec is None):
        raise _UsageError("give FILE, --spec or --task")
    study = _mapping(options.spec) if options.spec else {}
    data = _described(study, "data", options.spec)
    given = {"train": options.file} | {name: getattr(options, name) for name in _DATA_OPTIONS}
    data |= {name: value for name, value in given.items() if value is not None}
    model = options.model or _described(study, "model", options.spec).get("path")
    try:
        spec = DataSpec.model_validate({name: value for name, value in data.items() if name in DataSpec.model_fields})
    except ValidationError as error:
        raise _UsageError(first_problem(error)) from error
    return spec, model, _thresholds(options.thresholds, study.get("data_checks"), options.spec)


def _described(study: dict[str, Any], section: str, file: Path | None) -> dict[str, Any]:
    """A section of a study, its paths looked up from the current folder, then from the file's."""
    values = study.get(section)
    if file is None or not isinstance(values, dict):
        return {}
    paths = {name: values[name] for name in ("train", "eval", "test", "path") if isinstance(values.get(name), str)}
    return {**values, **{name: found_path(path, file.parent) for name, path in paths.items()}}


def _thresholds(path: Path | None, of_study: object, study: Path | None) -> QualityThresholds:
    """Those of a file, else of the study, which calls them `data_checks`, else the default ones."""
    try:
        return QualityThresholds.model_validate(_mapping(path) if path else of_study or {})
    except ValidationError as error:
        raise UserError(f"{path or study}: {first_problem(error)}") from error


def _mapping(path: Path) -> dict[str, Any]:
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no mapping of names to values")
    return content


def _write(report: QualityReport, options: argparse.Namespace) -> None:
    """Files first. What goes to - replaces the text on stdout."""
    texts = {options.json: report.model_dump_json(indent=2) + "\n", options.markdown: render.markdown(report)}
    for target, text in texts.items():
        if target not in (None, "-"):
            Path(target).write_text(text, encoding="utf-8")
    sys.stdout.write(texts.get("-", render.terminal(report)))
