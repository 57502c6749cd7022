"""Deliveries: the jobs that make a model of a promotion, one after another, each from what the one before left."""

from typing import Any, cast

from sqlalchemy.orm import Session

from hpo_service.core.messages import EventKind
from hpo_service.core.pricing import Prices
from hpo_service.core.study_rules import cost_usd
from hpo_service.dispatcher.jobs import jobs
from hpo_service.dispatcher.jobs.jobs import EndedJob, Jobs, LiveJob, runs_beside
from hpo_service.dispatcher.state.inbox import Inbox, shown
from hpo_service.storage.promotion_tables import Delivery, Promotion
from hpo_service.storage.queries import deliveries, dispatch
from hpo_service.storage.queries import jobs as repository
from hpo_service.storage.tables import Intent
from trainer.data.rows import total_examples
from trainer.spec import (
    Artifact,
    DataFingerprints,
    FinalAdapter,
    JobResult,
    MergeAdapter,
    Outcome,
    QuantizeModel,
    SliceResult,
    SnapshotRef,
    Task,
    TrainFinal,
    TrialFile,
    VariantName,
    needed_for,
)


def begin(session: Session, open_jobs: Jobs, intent: Intent) -> None:
    """Write the first job of the delivery that was asked for."""
    delivery, promotion = deliveries.with_promotion(session, intent.payload["delivery_id"])
    jobs.add_step(session, open_jobs, delivery, _training(delivery, promotion))
    asked = {"merge": delivery.merge, "quantize": delivery.quantize}
    _tell(session, delivery, promotion, EventKind.DELIVERY_STARTED, asked)


def settle_training(session: Session, open_jobs: Jobs, result: SliceResult, *, prices: Prices) -> EndedJob | None:
    """Apply the end of an attempt at a training, which its worker ran as a slice. A stale one changes nothing."""
    job = open_jobs.get(result.slice_id)
    smaller = None
    if job is not None and job.running and job.attempt == result.attempt:
        if result.outcome is Outcome.PREEMPTED and result.snapshot is not None:
            jobs.keep_checkpoint(session, job, result.snapshot)
        smaller = _half(job, result)
        if smaller is not None:
            jobs.shrink(session, job, smaller)
    seconds = result.usage.total_seconds()
    usd = cost_usd(seconds, result.usage.devices, prices.usd_per_device_hour(result.device))
    told = _as_job(result, seconds * result.usage.devices)
    return jobs.settle(session, open_jobs, (), told, prices=prices, usd=usd, again=smaller is not None)


def note_progress(session: Session, open_jobs: Jobs, inbox: Inbox) -> None:
    """Keep the signs of life of trainings, and what they leave on their way."""
    current = {job.token: job for job in open_jobs.values() if job.running and not runs_beside(open_jobs, job.token)}
    for progress in inbox.checkpoints:
        job = current.get((progress.slice_id, progress.attempt))
        if job is not None and progress.checkpoint is not None:
            jobs.keep_checkpoint(session, job, progress.checkpoint)
    for token, progress in inbox.progress.items():
        if token in current:
            repository.set_progress(session, token, shown(progress))


def follow(session: Session, open_jobs: Jobs, ended: EndedJob | None) -> None:
    """After a job that has ended: the delivery's next one, or the delivery's end."""
    if ended is None or ended.job.delivery_id is None:
        return
    delivery, promotion = deliveries.with_promotion(session, ended.job.delivery_id)
    about: dict[str, Any] = {"job": ended.job.id, "kind": ended.job.task.kind}
    result = ended.result
    if ended.state == "failed" or result.report is None:
        about |= {"outcome": str(result.outcome), "message": result.message}
        _tell(session, delivery, promotion, EventKind.DELIVERY_FAILED, about)
        return
    _tell(session, delivery, promotion, EventKind.DELIVERY_STEP, about | {"seconds": result.seconds})
    task = _next(delivery, promotion, ended.job.task, result.report)
    if task is None:
        _tell(session, delivery, promotion, EventKind.DELIVERY_COMPLETED, {})
    else:
        jobs.add_step(session, open_jobs, delivery, task)


def kept_path(ended: EndedJob) -> str | None:
    """What a step that is done left in the store; beside it lies only what attempts at it broke off."""
    if ended.state == "failed" or ended.result.report is None:
        return None
    if isinstance(ended.job.task, TrainFinal):
        return FinalAdapter.model_validate(ended.result.report).snapshot.path
    if isinstance(ended.job.task, MergeAdapter | QuantizeModel):
        return Artifact.model_validate(ended.result.report).path
    return None


def _training(delivery: Delivery, promotion: Promotion) -> TrainFinal:
    document = TrialFile.model_validate(promotion.document)
    digests = promotion.facts["digests"]
    return TrainFinal(
        trial=document.trial(),
        until_examples=total_examples(document.provenance["train_rows"], document.parameters.epochs),
        folder=f"deliveries/{delivery.id}/train",
        snapshots=tuple(SnapshotRef.model_validate(snapshot) for snapshot in delivery.offered),
        data_fingerprints=DataFingerprints.model_validate({name: digests[name] for name in ("train", "eval", "test")}),
        later_needs=needed_for(_variant(delivery)),
        dtype_pinned=bool(document.provenance.get("dtype_device")),
    )


def _next(delivery: Delivery, promotion: Promotion, task: Task, report: dict[str, Any]) -> Task | None:
    document = TrialFile.model_validate(promotion.document)
    variant = _variant(delivery)
    if isinstance(task, TrainFinal) and (delivery.merge or variant):
        return MergeAdapter(
            model=document.model.path,
            adapter=FinalAdapter.model_validate(report).snapshot,
            data=document.data,
            folder=f"deliveries/{delivery.id}/merged",
        )
    if isinstance(task, MergeAdapter) and variant:
        merged = Artifact.model_validate(report)
        return QuantizeModel(
            variant=variant,
            merged=merged.path,
            files=merged.files,
            data=document.data,
            folder=f"deliveries/{delivery.id}/{variant}",
        )
    return None


def _as_job(result: SliceResult, seconds: float) -> JobResult:
    report = None
    if result.outcome is Outcome.DONE:
        assert result.snapshot is not None
        assert result.eval_loss is not None
        report = FinalAdapter(
            snapshot=result.snapshot,
            files=result.snapshot_files,
            examples_seen=result.examples_seen,
            resumed_from_examples=result.resumed_from_examples,
            eval_loss=result.eval_loss,
            test_loss=result.test_loss,
            device=result.device,
        ).model_dump(mode="json")
    return JobResult(
        job_id=result.slice_id,
        attempt=result.attempt,
        outcome=result.outcome,
        report=report,
        seconds=seconds,
        message=result.message,
    )


def _half(job: LiveJob, result: SliceResult) -> int | None:
    """With how many examples at once a group that ran out of memory tries again; one device does that by itself."""
    tried = result.micro_batch
    if not isinstance(job.task, TrainFinal) or result.outcome is not Outcome.OOM or job.task.trial.training.ranks == 1:
        return None
    return tried // 2 if tried is not None and tried > 1 else None


def _variant(delivery: Delivery) -> VariantName | None:
    return cast("VariantName | None", delivery.quantize)


def _tell(session: Session, delivery: Delivery, promotion: Promotion, kind: EventKind, payload: dict[str, Any]) -> None:
    about = {"delivery": delivery.id, "promotion": f"{promotion.name}@{promotion.version}"}
    dispatch.add_event(session, delivery.project_id, promotion.study_id, kind, about | payload)
