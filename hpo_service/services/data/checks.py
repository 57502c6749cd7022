"""Data checks: asked for once for each fingerprint, shown to whoever waits for one."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from hpo_service.core.errors import NotFound
from hpo_service.services.data.fingerprints import check_fingerprint
from hpo_service.services.studies.spec_schemas import CheckState, DataCheckDocument
from hpo_service.spec import ResolvedStudy
from hpo_service.storage.queries import jobs, studies
from hpo_service.storage.tables import Job
from trainer.spec import CheckData

WAITING = "waits for the check of its data (job {job})"
_STATES: dict[str, CheckState] = {"pass": "passed", "warn": "warned", "fail": "failed"}
OFF = DataCheckDocument(state="off", job=None, message="data_checks.enabled is false", report=None, seconds=0.0)


@dataclass(frozen=True, kw_only=True)
class Check:
    """A data check that a study needs."""

    task: CheckData
    fingerprint: str


def needed(resolved: ResolvedStudy) -> Check | None:
    """The check of the study's data; None if it goes without. Looks at the files, so no transaction should be open."""
    if not resolved.data_checks.enabled:
        return None
    task = CheckData(model=resolved.model.path, data=resolved.data, thresholds=resolved.data_checks)
    return Check(task=task, fingerprint=check_fingerprint(task))


def ask(session: Session, project_id: int, check: Check, study_id: int | None = None) -> DataCheckDocument:
    """The report of this fingerprint, or the job that will bring it; a new one is asked for if there is none."""
    jobs.lock(session, project_id, check.fingerprint)
    job = jobs.answering(session, project_id, check.fingerprint)
    if job is not None:
        return _document(job)
    intent = jobs.asked_for(session, project_id, fingerprint=check.fingerprint)
    if intent is not None:
        return _pending(int(intent.payload["job_id"]))
    job_id = jobs.reserve_id(session)
    payload = {
        "job_id": job_id,
        "study_id": study_id,
        "fingerprint": check.fingerprint,
        "task": check.task.model_dump(mode="json"),
    }
    jobs.ask(session, project_id, payload)
    return _pending(job_id)


def show(session: Session, project_id: int, job_id: int) -> DataCheckDocument:
    """How far a check is. Raises NotFound."""
    job = jobs.find(session, project_id, job_id)
    if job is not None:
        return _document(job)
    if jobs.asked_for(session, project_id, job_id=job_id) is None:
        raise NotFound(f"there is no data check {job_id} in this project.")
    return _pending(job_id)


def show_of_study(session: Session, project_id: int, name: str) -> DataCheckDocument:
    """The check that the study waits or waited for. Raises NotFound."""
    study = studies.find(session, project_id, name)
    return OFF if study.check_job_id is None else show(session, project_id, study.check_job_id)


def _document(job: Job) -> DataCheckDocument:
    state: CheckState = "failed" if job.state == "failed" else "pending"
    if job.state == "done" and job.report is not None:
        state = _STATES[job.report["verdict"]]
    return DataCheckDocument(
        state=state,
        job=job.id,
        message=job.message if job.outcome not in (None, "done") else "",
        report=job.report,
        seconds=job.seconds,
    )


def _pending(job_id: int) -> DataCheckDocument:
    return DataCheckDocument(state="pending", job=job_id, message="", report=None, seconds=0.0)
