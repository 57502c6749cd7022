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


def needed(resolved: ResolvedStudy, targets: tuple[str, ...] = ()) -> Check | None:
    """The check of the study's data, and of the target modules that only a worker can look for.

    None if the study goes without. Looks at the files, so no transaction should be open.
    """
    if not resolved.data_checks.enabled:
        return None
    task = CheckData(
        model=resolved.model.path, data=resolved.data, thresholds=resolved.data_checks, target_modules=targets
    )
    return Check(task=task, fingerprint=check_fingerprint(task))


def ask(
    session: Session, project_id: int, check: Check, study_id: int | None = None, caller: int | None = None
) -> DataCheckDocument:
    """The report of this fingerprint, or the job that will bring it; a new one is asked for if there is none.

    Either a study waits for it, or a `caller` (the id of a key) only wants to know: he wants one check at a time, so
    that an older one ends which nobody else wants.
    """
    jobs.lock(session, project_id, check.fingerprint)
    job = jobs.answering(session, project_id, check.fingerprint)
    job_id = None if job is None else job.id
    if job_id is None:
        intent = jobs.asked_for(session, project_id, fingerprint=check.fingerprint)
        job_id = None if intent is None else int(intent.payload["job_id"])
    if job_id is None or (caller is not None and jobs.last_wanted(session, project_id, caller) != job_id):
        job_id = job_id or jobs.reserve_id(session)
        payload = {
            "job_id": job_id,
            "study_id": study_id,
            "fingerprint": check.fingerprint,
            "task": check.task.model_dump(mode="json"),
            **({} if caller is None else {"caller": caller}),
        }
        jobs.ask(session, project_id, payload)
    return _pending(job_id) if job is None else _document(job)


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
