"""`python -m trainer check-paths`: which paths this machine sees, as a worker answers it."""

import argparse
import os
import shutil
import socket
import sys
from pathlib import Path

from pydantic import ValidationError

from trainer.common.errors import TrainerError, UserError
from trainer.snapshots.stores import open_store
from trainer.snapshots.stores.location import is_url
from trainer.snapshots.stores.marker import read_marker
from trainer.spec import CheckPaths, PathSeen, PathsReport


def add_check_paths_options(parser: argparse.ArgumentParser) -> None:
    """--task."""
    parser.add_argument("--task", choices=["-"], required=True, help="a CheckPaths task is one line of JSON on stdin")


def check_paths(_: argparse.Namespace) -> dict[str, object]:
    """The report. Raises UserError for a task that is none."""
    try:
        task = CheckPaths.model_validate_json(sys.stdin.buffer.readline())
    except ValidationError as error:
        raise UserError(f"the task is no CheckPaths: {error.errors()[0]['msg']}") from error
    return look(task).model_dump(mode="json")


def look(task: CheckPaths) -> PathsReport:
    """What is here of what the task asks for."""
    marker, problem = "", ""
    try:
        marker = read_marker(open_store(task.snapshots)).id
    except (TrainerError, OSError) as error:
        problem = str(error)
    return PathsReport(
        node=socket.gethostname(),
        paths=tuple(_seen(Path(path)) for path in task.paths),
        marker=marker,
        marker_problem=problem,
        snapshots_free_bytes=None if is_url(task.snapshots) else _free_bytes(Path(task.snapshots)),
    )


def _seen(path: Path) -> PathSeen:
    try:
        wanted = os.R_OK | (os.X_OK if path.is_dir() else 0)
        path.stat()
    except OSError as error:
        return PathSeen(path=str(path), problem=error.strerror or str(error))
    return PathSeen(path=str(path), problem="" if os.access(path, wanted) else "not readable")


def _free_bytes(folder: Path) -> int | None:
    """Where the folder is, or will be."""
    there = next((parent for parent in (folder, *folder.parents) if parent.exists()), None)
    return None if there is None else shutil.disk_usage(there).free
