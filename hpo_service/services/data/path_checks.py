"""Path checks: every worker that takes work is asked which models, data and snapshots it sees from its node."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from sqlalchemy.orm import Session

from hpo_service.core.errors import NotFound
from hpo_service.core.messages import IntentKind
from hpo_service.services.common.schemas import Document
from hpo_service.spec import ResolvedStudy
from hpo_service.storage.queries import jobs, studies, workers
from hpo_service.storage.tables import Job
from trainer.common.errors import SnapshotError
from trainer.snapshots.stores import Store
from trainer.snapshots.stores.marker import read_marker
from trainer.spec import CheckPaths, PathsReport

_MOST_PATHS = 256


class PathCheckDocument(Document):
    """What one worker sees."""

    job: int
    """Look at `/v1/path-checks/{job}` for how it goes on."""
    worker: str
    state: Literal["pending", "done", "failed"]
    """failed: the worker could not answer; `message` says why."""
    message: str
    problems: list[str]
    """A sentence for each path, and for the snapshot store, that the worker does not see as it should."""
    report: PathsReport | None
    """null while it is pending."""


class PathChecksDocument(Document):
    """Every worker that was asked."""

    checks: list[PathCheckDocument]


def ask(session: Session, project_id: int, snapshots: str, roots: Sequence[Path]) -> PathChecksDocument:
    """Ask every worker about `roots`, the inputs of all live studies, and the snapshot store at `snapshots`."""
    paths = _paths(session, project_id, roots)
    asked = []
    for worker in workers.newest_first(session, project_id, before_id=None, limit=1000, gone=False):
        if worker.state != workers.READY:
            continue
        task = CheckPaths(worker=worker.name, snapshots=snapshots, paths=paths)
        job_id = jobs.reserve_id(session)
        payload = {"job_id": job_id, "study_id": None, "fingerprint": "", "task": task.model_dump(mode="json")}
        jobs.ask(session, project_id, payload, IntentKind.CHECK_PATHS)
        asked.append(_pending(job_id, worker.name))
    return PathChecksDocument(checks=asked)


def show(session: Session, project_id: int, job_id: int) -> PathCheckDocument:
    """How far a check is. Raises NotFound."""
    job = jobs.find(session, project_id, job_id)
    if job is not None and job.kind == "check_paths":
        return _document(job)
    intent = jobs.asked_for(session, project_id, IntentKind.CHECK_PATHS, job_id=job_id)
    if intent is None:
        raise NotFound(f"there is no path check {job_id} in this project.")
    return _pending(job_id, str(intent.payload["task"]["worker"]))


def judged(check: PathCheckDocument, store: Store) -> PathCheckDocument:
    """The check with its problems. `store` is the one of this process; no transaction should be open."""
    if check.report is None:
        return check
    problems = [f"{path.path}: {path.problem}" for path in check.report.paths if path.problem]
    return check.model_copy(update={"problems": [*problems, *_store_problems(check.report, store)]})


def _store_problems(report: PathsReport, store: Store) -> list[str]:
    where = f"the snapshot store {store.location}"
    if report.marker_problem:
        return [f"{where}: {report.marker_problem}"]
    try:
        known = read_marker(store).known()
    except (OSError, SnapshotError) as error:
        return [f"{where} is not seen by the API itself: {error}"]
    return [] if report.marker in known else [f"{where}: the worker finds another one there than the API"]


def _paths(session: Session, project_id: int, roots: Sequence[Path]) -> tuple[str, ...]:
    paths = [str(root) for root in roots]
    for study in studies.live(session, project_id):
        resolved = ResolvedStudy.model_validate(study.resolved)
        data = resolved.data
        paths += [resolved.model.path, *(path for path in (data.train, data.eval, data.test) if path is not None)]
    return tuple(dict.fromkeys(paths))[:_MOST_PATHS]


def _document(job: Job) -> PathCheckDocument:
    done = job.state == "done" and job.report is not None
    return PathCheckDocument(
        job=job.id,
        worker=str(job.task["worker"]),
        state="done" if done else "failed" if job.state == "failed" else "pending",
        message=job.message,
        problems=[],
        report=PathsReport.model_validate(job.report) if done else None,
    )


def _pending(job_id: int, worker: str) -> PathCheckDocument:
    return PathCheckDocument(job=job_id, worker=worker, state="pending", message="", problems=[], report=None)
