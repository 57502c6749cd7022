"""Jobs: placed on workers beside the slices, retried like them, and what their end means for the studies that wait."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from hpo_service.dispatcher import endings
from hpo_service.dispatcher.memory import LiveStudy
from hpo_service.domain import COUNTED_CAUSES, TERMINAL, Cause, StudyState, cost_usd
from hpo_service.intents import EventKind
from hpo_service.prices import Prices
from hpo_service.repository import dispatch, jobs
from hpo_service.tables import Intent
from hpo_service.tables import Job as JobRow
from trainer.spec import CheckPaths, Job, JobResult, Outcome, Task, job_task

log = logging.getLogger(__name__)

_MAX_ATTEMPTS = 3
_RETRIED = frozenset({Outcome.INFRA_ERROR, Outcome.LOST})


@dataclass(kw_only=True)
class LiveJob:
    """An open job: `running` under its current attempt, or waiting for the next one."""

    id: int
    task: Task
    attempt: int
    failures: int
    running: bool
    stop_sent: bool = False

    @property
    def token(self) -> tuple[int, int]:
        """The fencing token of the current attempt."""
        return (self.id, self.attempt)

    @property
    def only_for(self) -> str | None:
        """The one worker that can do it; None if any can."""
        return self.task.worker if isinstance(self.task, CheckPaths) else None

    def next_attempt(self) -> Job:
        """The job as a worker gets it, for the attempt after the current one."""
        return Job(job_id=self.id, attempt=self.attempt + 1, task=self.task)


Jobs = dict[int, LiveJob]


def load_jobs(session: Session) -> Jobs:
    """All open jobs, oldest first."""
    return {row.id: _live(row) for row in jobs.open_jobs(session)}


def add_job(session: Session, open_jobs: Jobs, intent: Intent) -> None:
    """Write the job that an intent asks for."""
    payload = intent.payload
    row = jobs.add(
        session,
        intent.project_id,
        job_id=payload["job_id"],
        study_id=payload["study_id"],
        fingerprint=payload["fingerprint"],
        task=job_task.validate_python(payload["task"]),
    )
    open_jobs[row.id] = _live(row)


def begin(session: Session, job: LiveJob, worker_id: int) -> None:
    """Write the next attempt of a waiting job."""
    job.attempt += 1
    job.running = True
    jobs.start(session, job.id, job.attempt, worker_id)


def give_up(session: Session, open_jobs: Jobs, job: LiveJob) -> None:
    """The one worker that could do it is gone."""
    jobs.give_up(session, job.id, f"worker {job.only_for} is gone")
    open_jobs.pop(job.id, None)


def lost(token: tuple[int, int], reason: str) -> JobResult:
    """The end of an attempt whose worker cannot speak for itself."""
    return JobResult(job_id=token[0], attempt=token[1], outcome=Outcome.LOST, message=reason)


def settle(
    session: Session,
    open_jobs: Jobs,
    studies: Iterable[LiveStudy],
    result: JobResult,
    *,
    prices: Prices,
    cause: Cause | None = None,
) -> None:
    """Apply the end of an attempt to the job and to the studies that wait for it. A stale one changes nothing.

    `cause` is why the attempt was lost; whether that counts against the job follows from it. The job is priced as if
    it had had a worker for itself.
    """
    job = open_jobs.get(result.job_id)
    if result.outcome is Outcome.INFRA_ERROR:
        cause = cause or Cause.INFRA_ERROR
    failed = cause in COUNTED_CAUSES
    state = _next_state(result, failed, 0 if job is None else job.failures)
    cost = cost_usd(result.seconds, 1, prices.usd_per_device_hour(""))
    if job is None or not job.running or not jobs.end(session, result, cost, state=state, cause=cause):
        log.warning("stale result of job %d attempt %d is dropped", result.job_id, result.attempt)
        return
    job.running, job.stop_sent = False, False
    job.failures += int(failed)
    if state == "waiting":
        log.warning("job %d is tried again after %s: %s", job.id, result.outcome, result.message)
        return
    del open_jobs[job.id]
    for study in studies:
        if study.check_job_id == job.id and study.optuna_study_id is not None:
            apply_check(session, study, result.outcome, result.message, result.report)


def apply_ended_check(session: Session, study: LiveStudy) -> None:
    """The study was just opened: what the check that it waits for has said, if it has ended already."""
    row = None if study.check_job_id is None else jobs.find(session, study.project_id, study.check_job_id)
    if row is not None and row.state in ("done", "failed"):
        apply_check(session, study, Outcome(row.outcome or Outcome.LOST), row.message, row.report)


def apply_check(
    session: Session, study: LiveStudy, outcome: Outcome, message: str, report: dict[str, Any] | None
) -> None:
    """Let the study go on, or fail it. Findings become an event."""
    if study.state in TERMINAL:
        return
    if outcome is not Outcome.DONE or report is None:
        endings.fail_study(session, study, f"the data could not be checked: {message}. {_way_round()}")
        return
    findings = [finding for finding in report["findings"] if finding["verdict"] in ("warn", "fail")]
    payload = {"job": study.check_job_id, "verdict": report["verdict"], "findings": findings}
    dispatch.add_event(session, study.project_id, study.id, EventKind.DATA_CHECKED, payload)
    if report["verdict"] == "fail":
        endings.fail_study(session, study, _refusal(study.name, findings))
        return
    study.awaits_check = False
    if study.state is StudyState.QUEUED:
        study.message = ""
        dispatch.update_study(session, study.id, message="")


def _next_state(result: JobResult, failed: bool, failures: int) -> str:
    if result.outcome is Outcome.DONE and result.report is not None:
        return "done"
    if result.outcome in _RETRIED:
        return "failed" if failed and failures + 1 >= _MAX_ATTEMPTS else "waiting"
    return "waiting" if result.outcome is Outcome.PREEMPTED else "failed"


def _refusal(name: str, findings: list[dict[str, Any]]) -> str:
    failed = ", ".join(finding["check"] for finding in findings if finding["verdict"] == "fail")
    return (
        f"the data check failed: {failed}. Read the report with `hpo study data-check {name}`, mend the data or raise "
        f"the thresholds below data_checks, and clone the study. {_way_round()}"
    )


def _way_round() -> str:
    return "With data_checks.enabled: false a study goes without the check."


def _live(row: JobRow) -> LiveJob:
    return LiveJob(
        id=row.id,
        task=job_task.validate_python(row.task),
        attempt=row.attempt,
        failures=row.failures,
        running=row.state == "running",
    )
