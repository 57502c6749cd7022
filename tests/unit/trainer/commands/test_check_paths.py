"""Whether a node sees what its work needs."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainer.commands.check_paths import look
from trainer.snapshots.stores.folder import FolderStore
from trainer.snapshots.stores.marker import leave_marker
from trainer.spec import CheckPaths, Job, JobResult, Outcome, PathsReport
from trainer.worker.jobs import REFUSED, JobRuns


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "a-file").touch()
    paths = tuple(str(tmp_path / name) for name in ("here", "a-file", "nowhere"))
    report = look(CheckPaths(worker="w", snapshots=str(tmp_path / "nothing"), paths=paths))
    assert [seen.problem for seen in report.paths] == ["", "", "No such file or directory"]
    assert report.marker == ""
    assert "cannot be read" in report.marker_problem
    assert report.snapshots_free_bytes


def test_an_object_store_that_does_not_exist_is_named() -> None:
    report = look(CheckPaths(worker="w", snapshots="memory://empty/store", paths=()))
    assert (report.marker, report.snapshots_free_bytes) == ("", None)
    assert "memory://empty/store" in report.marker_problem


@pytest.mark.parametrize("line", ["", "{}", "no JSON"])
def test_a_task_that_is_none_is_refused_with_a_sentence(line: str) -> None:
    """Not as if the machine were at fault: then the service would ask again."""
    command = [sys.executable, "-m", "trainer", "check-paths", "--task", "-"]
    ran = subprocess.run(command, input=f"{line}\n", capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (REFUSED, "")
    assert ran.stderr.startswith("error: the task is no CheckPaths: ")


def test_a_refused_task_ends_its_job_at_once(tmp_path: Path) -> None:
    """Of a service that asks for more paths than its worker takes."""
    task = CheckPaths.model_construct(worker="w", snapshots="s", paths=("p",) * 257)
    result = ended(
        JobRuns(tmp_path, str(tmp_path / "snapshots"), 1), Job.model_construct(job_id=1, attempt=1, task=task)
    )
    assert result.outcome is Outcome.DATA_ERROR
    assert result.message.startswith("the task is no CheckPaths: ")


def ended(jobs: JobRuns, job: Job) -> JobResult:
    """The job's result."""
    assert jobs.start(job) is None
    deadline = time.monotonic() + 60
    while not (results := jobs.ended()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return results[0]


def test_a_worker_answers_it_as_a_job(tmp_path: Path) -> None:
    marker = leave_marker(FolderStore(tmp_path), 1)
    task = CheckPaths(worker="w", snapshots=str(tmp_path), paths=(str(tmp_path),))
    result = ended(JobRuns(tmp_path, str(tmp_path / "snapshots"), 1), Job(job_id=1, attempt=1, task=task))
    assert result.outcome is Outcome.DONE, result.message
    report = PathsReport.model_validate(result.report)
    assert (report.marker, report.marker_problem) == (marker.id, "")
