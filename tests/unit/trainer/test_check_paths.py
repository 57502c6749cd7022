"""Whether a node sees what its work needs."""

import time
from pathlib import Path

from trainer.check_paths import look
from trainer.jobs import JobRuns
from trainer.spec import CheckPaths, Job, Outcome, PathsReport
from trainer.stores.folder import FolderStore
from trainer.stores.marker import leave_marker


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


def test_a_worker_answers_it_as_a_job(tmp_path: Path) -> None:
    marker = leave_marker(FolderStore(tmp_path), 1)
    task = CheckPaths(worker="w", snapshots=str(tmp_path), paths=(str(tmp_path),))
    jobs = JobRuns(tmp_path)
    assert jobs.start(Job(job_id=1, attempt=1, task=task)) is None
    deadline = time.monotonic() + 60
    while not (results := jobs.ended()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert results[0].outcome is Outcome.DONE, results[0].message
    report = PathsReport.model_validate(results[0].report)
    assert (report.marker, report.marker_problem) == (marker.id, "")
