"""Jobs: placed on workers beside the slices, retried like them, and what their end means for the studies that wait."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from sqlalchemy.orm import Session

from hpo_service.core.messages import EventKind
from hpo_service.core.pricing import Prices
from hpo_service.core.study_rules import COUNTED_CAUSES, TERMINAL, Cause, StudyState, cost_usd
from hpo_service.dispatcher.lifecycle import study_state
from hpo_service.dispatcher.state.live_studies import LiveStudy
from hpo_service.executors.base import Token, Work
from hpo_service.storage.promotion_tables import Delivery
from hpo_service.storage.queries import dispatch, jobs
from hpo_service.storage.tables import Intent
from hpo_service.storage.tables import Job as JobRow
from trainer.spec import (
    Artifact,
    CheckData,
    CheckPaths,
    FinalAdapter,
    Job,
    JobResult,
    MergeAdapter,
    Outcome,
    PathsReport,
    QualityReport,
    QuantizeModel,
    SnapshotRef,
    Task,
    TrainFinal,
    job_task,
)

log = logging.getLogger(__name__)

_MAX_ATTEMPTS = 3
_OUTDATED = "a newer check that was asked for with the same key took its place; ask again to have this one"
_RETRIED = frozenset({Outcome.INFRA_ERROR, Outcome.LOST})
#: checkpoints of a training that are offered to a worker, newest first: as many as of a trial
_OFFERED_SNAPSHOTS = 4
_REPORTS: dict[str, type[BaseModel]] = {
    "check_data": QualityReport,
    "check_paths": PathsReport,
    "train_final": FinalAdapter,
    "merge": Artifact,
    "quantize": Artifact,
}

JobState = Literal["waiting", "done", "failed"]


@dataclass(kw_only=True)
class LiveJob:
    """An open job: `running` under its current attempt, or waiting for the next one. `checkpoints` are newest first.

    `callers` are the keys that want a check which no study asked for; None of a job that no key asked for by itself.
    """

    id: int
    project_id: int
    task: Task
    attempt: int
    failures: int
    running: bool
    delivery_id: int | None = None
    study_id: int | None = None
    callers: set[int] | None = None
    checkpoints: tuple[SnapshotRef, ...] = ()
    stop_sent: bool = False

    @property
    def token(self) -> tuple[int, int]:
        """The fencing token of the current attempt."""
        return (self.id, self.attempt)

    @property
    def only_for(self) -> str | None:
        """The one worker that can do it; None if any can."""
        return self.task.worker if isinstance(self.task, CheckPaths) else None

    @property
    def for_callers(self) -> bool:
        """Whether only keys asked for it, to know; a study may wait for it since."""
        return self.callers is not None and self.study_id is None

    @property
    def needs(self) -> str | None:
        """The package that its worker has to have."""
        return self.task.needs if isinstance(self.task, QuantizeModel) else None

    def next_attempt(self) -> Work:
        """The job as a worker gets it, for the attempt after the current one: a training as a slice."""
        number = self.attempt + 1
        match self.task:
            case TrainFinal():
                return self.task.as_slice(self.id, number, self.checkpoints[:_OFFERED_SNAPSHOTS])
            case MergeAdapter() | QuantizeModel():
                return Job(job_id=self.id, attempt=number, task=self.task.at_attempt(number))
            case CheckData() | CheckPaths():
                return Job(job_id=self.id, attempt=number, task=self.task)


@dataclass(frozen=True, kw_only=True)
class EndedJob:
    """A job that is done or failed, with what its last attempt said."""

    job: LiveJob
    result: JobResult
    state: JobState


Jobs = dict[int, LiveJob]


def runs_beside(open_jobs: Jobs, token: Token) -> bool:
    """Whether the attempt is of a job that runs beside the slices; a training runs as one of them."""
    job = open_jobs.get(token[0])
    return job is not None and not isinstance(job.task, TrainFinal)


def load_jobs(session: Session) -> Jobs:
    """All open jobs, oldest first."""
    loaded = {row.id: _live(row) for row in jobs.open_jobs(session)}
    checks = [job.id for job in loaded.values() if isinstance(job.task, CheckData)]
    for job_id, callers in (jobs.callers(session, checks) if checks else {}).items():
        loaded[job_id].callers = callers
    return loaded


def add_job(session: Session, open_jobs: Jobs, intent: Intent) -> None:
    """Write the job that an intent asks for, unless it was asked for before.

    A key that asks by itself wants nothing else any more that it asked for so.
    """
    payload = intent.payload
    job_id, caller = payload["job_id"], payload.get("caller")
    if job_id not in open_jobs and jobs.find(session, intent.project_id, job_id) is None:
        row = jobs.add(
            session,
            intent.project_id,
            job_id=job_id,
            study_id=payload["study_id"],
            fingerprint=payload["fingerprint"],
            task=job_task.validate_python(payload["task"]),
        )
        open_jobs[row.id] = _live(row)
    if caller is None:
        return
    for job in open_jobs.values():
        if job.id == job_id:
            job.callers = {*(job.callers or ()), caller}
        elif job.callers is not None:
            job.callers.discard(caller)


def begin(session: Session, job: LiveJob, worker_id: int) -> None:
    """Write the next attempt of a waiting job."""
    job.attempt += 1
    job.running = True
    jobs.start(session, job.id, job.attempt, worker_id)


def add_step(session: Session, open_jobs: Jobs, delivery: Delivery, task: Task) -> LiveJob:
    """Write the next job of a delivery."""
    row = jobs.add(
        session,
        delivery.project_id,
        job_id=jobs.reserve_id(session),
        study_id=None,
        fingerprint=f"delivery {delivery.id} {task.kind}",
        task=task,
        delivery=delivery,
    )
    job = open_jobs[row.id] = _live(row)
    return job


def give_up(session: Session, open_jobs: Jobs, job: LiveJob, outcome: Outcome, reason: str) -> EndedJob:
    """It fails before it has begun again: nobody is there who could do it."""
    jobs.give_up(session, job.id, outcome, reason)
    open_jobs.pop(job.id, None)
    result = JobResult(job_id=job.id, attempt=job.attempt, outcome=outcome, message=reason)
    return EndedJob(job=job, result=result, state="failed")


def end_unwanted(session: Session, open_jobs: Jobs, job: LiveJob) -> None:
    """A check that waits, and that the keys which asked for it want no more, ends, unless a study came to want it."""
    if jobs.nobody_waits(session, job.project_id, job.id):
        give_up(session, open_jobs, job, Outcome.PREEMPTED, _OUTDATED)


def keep_checkpoint(session: Session, job: LiveJob, checkpoint: SnapshotRef) -> None:
    """A training left a snapshot on its way. One that is known, which a worker tells a new dispatcher again, is not."""
    if checkpoint not in job.checkpoints:
        job.checkpoints = (checkpoint, *job.checkpoints)
        jobs.keep_snapshots(session, job.id, job.checkpoints)


def shrink(session: Session, job: LiveJob, micro_batch: int) -> None:
    """Its next attempts take no more than this at once."""
    assert isinstance(job.task, TrainFinal)
    job.task = job.task.model_copy(update={"micro_batch": micro_batch})
    jobs.keep_task(session, job.id, job.task)


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
    usd: float | None = None,
    again: bool = False,
) -> EndedJob | None:
    """Apply the end of an attempt to the job and to the studies that wait for it. A stale one changes nothing.

    `cause` is why the attempt was lost; whether that counts against the job follows from it. A job that runs beside
    slices is priced as if it had had a worker for itself, any other costs `usd`. What a lost attempt took is estimated.
    `again`: it is tried again whatever its outcome. Done without a report of its kind is an infra error. None while the
    job is open.
    """
    job = open_jobs.get(result.job_id)
    if job is None or not job.running or job.attempt != result.attempt:
        log.warning("stale result of job %d attempt %d is dropped", result.job_id, result.attempt)
        return None
    result = _checked(job.task, result)
    if result.outcome is Outcome.INFRA_ERROR:
        cause = cause or Cause.INFRA_ERROR
    failed = cause in COUNTED_CAUSES
    if result.outcome is Outcome.LOST and cause is not Cause.NEVER_SENT:
        ranks = job.task.trial.training.ranks if isinstance(job.task, TrainFinal) else 1
        result = result.model_copy(update={"seconds": jobs.held_seconds(session, job.id) * ranks})
    state: JobState = "waiting" if again else _next_state(result, failed, job.failures)
    cost = cost_usd(result.seconds, 1, prices.usd_per_device_hour("")) if usd is None else usd
    if not jobs.end(session, result, cost, state=state, cause=cause):
        log.warning("stale result of job %d attempt %d is dropped", result.job_id, result.attempt)
        return None
    job.running, job.stop_sent = False, False
    job.failures += int(failed)
    if state == "waiting":
        log.warning("job %d is tried again after %s: %s", job.id, result.outcome, result.message)
        return None
    del open_jobs[job.id]
    for study in studies:
        if study.check_job_id == job.id and study.optuna_study_id is not None:
            apply_check(session, study, result.outcome, result.message, result.report)
    return EndedJob(job=job, result=result, state=state)


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
    if outcome is Outcome.USER_ERROR:
        study_state.fail_study(session, study, f"it cannot be trained as written: {message}")
        return
    if outcome is not Outcome.DONE or report is None:
        study_state.fail_study(session, study, f"the data could not be checked: {message}. {_way_round()}")
        return
    findings = [finding for finding in report["findings"] if finding["verdict"] in ("warn", "fail")]
    payload = {"job": study.check_job_id, "verdict": report["verdict"], "findings": findings}
    dispatch.add_event(session, study.project_id, study.id, EventKind.DATA_CHECKED, payload)
    if report["verdict"] == "fail":
        study_state.fail_study(session, study, _refusal(study.name, findings))
        return
    study.awaits_check = False
    if study.state is StudyState.QUEUED:
        study.message = ""
        dispatch.update_study(session, study.id, message="")


def _checked(task: Task, result: JobResult) -> JobResult:
    """What follows from a report relies on it, so one that is not of the task's kind is no end of the job."""
    if result.outcome is not Outcome.DONE:
        return result
    try:
        _REPORTS[task.kind].model_validate(result.report)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "all of it"
        message = f"its report is not one of {task.kind}: {where}: {first['msg']}"
        return result.model_copy(update={"outcome": Outcome.INFRA_ERROR, "report": None, "message": message})
    return result


def _next_state(result: JobResult, failed: bool, failures: int) -> JobState:
    if result.outcome is Outcome.DONE:
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
        project_id=row.project_id,
        task=job_task.validate_python(row.task),
        attempt=row.attempt,
        failures=row.failures,
        running=row.state == "running",
        delivery_id=row.delivery_id,
        study_id=row.study_id,
        checkpoints=tuple(SnapshotRef.model_validate(snapshot) for snapshot in row.snapshots),
    )
